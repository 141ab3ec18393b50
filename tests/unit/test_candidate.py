from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from harness.candidate import OnnxModel
from harness.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_recorded_file_is_told_from_a_changed_or_missing_one(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"abc")
    model = OnnxModel(path, hashlib.sha256(b"abc").hexdigest(), 3, 17)
    model.read()
    path.write_bytes(b"abd")
    with pytest.raises(ConfigError, match="changed"):
        model.read()
    path.unlink()
    with pytest.raises(ConfigError, match="missing"):
        model.read()
