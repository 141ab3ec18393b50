from __future__ import annotations

from typing import Any

import pytest

from harness.errors import ConfigError
from harness.target import Target, target_from_mapping


def test_settings_override_and_leave_the_rest() -> None:
    target = Target("cpu", "onnxruntime", granule=8)
    changed = target.with_settings(["threads=4", "batch = 2"])
    assert changed == Target("cpu", "onnxruntime", threads=4, batch=2, granule=8)
    assert target.threads == 1


@pytest.mark.parametrize("text", ["threads", "=4", ""])
def test_a_setting_is_key_and_value(text: str) -> None:
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        Target("cpu", "onnxruntime").with_settings([text])


def test_an_unknown_key_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'thread'.*threads"):
        Target("cpu", "onnxruntime").with_settings(["thread=4"])


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", 1.0, True, None, [1]])
@pytest.mark.parametrize("key", ["threads", "batch", "granule"])
def test_counts_are_whole_numbers_from_one(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        target_from_mapping({key: value}, Target("cpu", "onnxruntime"), "targets.toml")


def test_a_new_target_needs_name_and_backend() -> None:
    with pytest.raises(ConfigError, match="missing backend"):
        target_from_mapping({"name": "mine"}, None, "targets.toml")
    with pytest.raises(ConfigError, match="backend and name"):
        target_from_mapping({}, None, "targets.toml")


def test_the_description_is_no_option_and_everything_else_is() -> None:
    one = Target("cpu", "onnxruntime", description="this")
    other = Target("cpu", "onnxruntime", description="that")
    assert one.options() == other.options()
    for change in ("threads=2", "batch=2", "granule=2"):
        assert one.with_settings([change]).options() != one.options()


@pytest.mark.parametrize("text", ["name=other", "backend=other", "needs_host=false"])
def test_what_a_target_is_can_not_be_set_for_one_run(text: str) -> None:
    with pytest.raises(ConfigError, match=text.partition("=")[0]):
        Target("cpu", "onnxruntime").with_settings([text])


@pytest.mark.parametrize(
    ("key", "value"), [("needs_host", "false"), ("backend", 5), ("backend", ""), ("description", 1)]
)
def test_a_value_of_the_wrong_kind_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        target_from_mapping({key: value}, Target("cpu", "onnxruntime"), "targets.toml")
