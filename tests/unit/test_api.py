"""What the package exports, and options that all of it takes."""

from __future__ import annotations

from typing import Any

import pytest

import harness
from harness.errors import ConfigError


@pytest.mark.parametrize("name", harness.__all__)
def test_what_is_exported_is_there(name: str) -> None:
    assert getattr(harness, name)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"threads": 0}, "`--threads`"),
        ({"settings": ["wings=2"]}, "`--set` knows no 'wings'"),
        ({"settings": "threads=2"}, "`settings` must be a list of texts"),
        ({"settings": [8]}, "`settings` must be a list of texts"),
        ({"target": 3}, "`target` must be a name or a Target"),
        ({"target": "cpuu"}, "Did you mean 'cpu'"),
    ],
)
@pytest.mark.parametrize("name", ["bench", "serve", "profile", "loadgen", "examine"])
def test_whatever_times_takes_a_targets_options(
    name: str, given: dict[str, Any], words: str
) -> None:
    file = {} if name == "examine" else {"path" if name != "bench" else "paths": "none.onnx"}
    rate = {"rate": 100.0} if name == "serve" else {}
    with pytest.raises(ConfigError, match=words):
        getattr(harness, name)(**{"target": "cpu", **file, **rate, **given})
