from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from harness.errors import ExportError
from harness.measurement import reference

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_the_frozen_reference_is_a_valid_model_of_the_pinned_hash() -> None:
    subject = reference.frozen_reference()
    proto = onnx.load(str(subject.model.path))
    onnx.checker.check_model(proto)
    assert subject.model.sha256 == reference.SHA256
    assert {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in proto.graph.input}[
        "input"
    ] == list(subject.inputs["input"].shape)
    assert subject.inputs["input"].dtype == np.float32


def test_a_damaged_reference_is_written_anew(cache: Path) -> None:
    path = reference.frozen_reference().model.path
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert reference.frozen_reference().model.path.read_bytes() == whole


def test_another_file_than_the_frozen_one_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "SHA256", "0" * 64)
    with pytest.raises(ExportError, match=r"Install onnx 1\.17"):
        reference.frozen_reference()


def test_a_short_history_says_nothing() -> None:
    assert not reference.is_off([1.0] * 4, 9.0)


@pytest.mark.parametrize(("now", "off"), [(1.09, False), (1.11, True), (0.92, False), (0.9, True)])
def test_a_quiet_machine_is_off_beyond_ten_per_cent(now: float, off: bool) -> None:
    assert reference.is_off([1.0, 1.001, 0.999, 1.0, 1.0], now) is off


def test_a_machine_that_always_varies_is_not_called_off_for_it() -> None:
    history = np.exp(np.random.default_rng(1).normal(0.0, 0.1, 50)).tolist()
    assert not reference.is_off(history, math.exp(0.25))
    assert reference.is_off(history, math.exp(0.8))


def test_the_history_grows_to_a_hundred_and_is_kept_apart_by_fingerprint() -> None:
    for i in range(105):
        reference.add_to_history("here", 1.0 + i)
    reference.add_to_history("there", 7.0)
    assert reference.read_history("here") == [1.0 + i for i in range(5, 105)]
    assert reference.read_history("there") == [7.0]
    assert reference.read_history("nowhere") == []


@pytest.mark.parametrize("text", ["", "[]", '{"p50_s": 3}', '{"p50_s": ["x"]}', "{"])
def test_a_damaged_history_is_none(cache: Path, text: str) -> None:
    reference.add_to_history("here", 1.0)
    (cache / "references" / "here.json").write_text(text)
    assert reference.read_history("here") == []
