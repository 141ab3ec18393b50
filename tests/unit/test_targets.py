from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from harness.errors import BackendUnavailable, ConfigError
from harness.target import Target
from harness_backends import registry
from harness_backends.onnxruntime import OnnxRuntimeBackend
from harness_backends.registry import BACKENDS, backend_class, open_backend
from harness_backends.targets import find_target, load_targets
from harness_backends.testing.fake import FakeBackend

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def user_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CONFIG_DIR", str(tmp_path))
    return tmp_path / "targets.toml"


def test_the_shipped_targets_load_without_a_users_file(user_targets: Path) -> None:
    assert not user_targets.exists()
    assert {"cpu", "gpu", "jetson", "raspberry-pi"} <= load_targets().keys()
    assert find_target("cpu").threads == 1
    assert find_target("cpu").batch == 1


def test_a_users_target_inherits_from_the_shipped_one_of_its_name(user_targets: Path) -> None:
    shipped = find_target("cpu")
    user_targets.write_text("[cpu]\nthreads = 2\n[mine]\nbackend = 'onnxruntime'\n")
    assert find_target("cpu").threads == 2
    assert find_target("cpu").granule == shipped.granule
    assert find_target("mine") == Target("mine", "onnxruntime")


def test_a_users_target_has_every_option(user_targets: Path) -> None:
    user_targets.write_text(
        "[mine]\nbackend = 'onnxruntime'\naffinity = [2, 0]\nprovider = 'P'\n"
        "[mine.shapes]\ninput = [1, 3, 32, 32]\nmask = '1x7'\n"
        "[mine.provider_options]\ndevice_id = '0'\n"
        "[mine.session_config]\n'session.intra_op.allow_spinning' = '0'\n"
    )
    assert find_target("mine") == Target(
        "mine", "onnxruntime", affinity=(0, 2), provider="P",
        shapes={"input": (1, 3, 32, 32), "mask": (1, 7)}, provider_options={"device_id": "0"},
        session_config={"session.intra_op.allow_spinning": "0"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("affinity = ['x']", "affinity"),
        ("affinity = 3", "affinity"),
        ("provider = 1", "provider"),
        ("shapes = {input = [0]}", "shapes.input"),
        ("shapes = '1x3'", "shapes"),
        ("provider_options = {device_id = 0}", "provider_options.device_id"),
        ("session_config = {a = true}", "session_config.a"),
        ("granule = 0", "granule"),
    ],
)
def test_a_wrong_value_is_refused_with_file_table_and_key(
    user_targets: Path, line: str, key: str
) -> None:
    user_targets.write_text(f"[cpu]\n{line}\n")
    with pytest.raises(ConfigError, match=rf"targets\.toml: \[cpu\]: {re.escape(key)} must be"):
        load_targets()


@pytest.mark.parametrize(
    "text", ["[cpu", "threads = 2", "[cpu]\nthread = 2", "[cpu]\nthreads = 0", "[mine]\nbatch = 1"]
)
def test_a_wrong_users_file_is_named(user_targets: Path, text: str) -> None:
    user_targets.write_text(text)
    with pytest.raises(ConfigError, match=r"targets\.toml"):
        load_targets()


def test_an_unknown_target_names_the_nearest(user_targets: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'jetson'"):
        find_target("jetsen")


def test_backends_are_found_by_name_once_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend_class("onnxruntime") is OnnxRuntimeBackend
    with pytest.raises(BackendUnavailable, match="'fake'"):
        backend_class("fake")
    monkeypatch.setitem(BACKENDS, "fake", FakeBackend.PATH)
    assert isinstance(open_backend(Target("t", "fake")), FakeBackend)


def test_a_board_is_refused_with_a_way_out() -> None:
    with pytest.raises(
        BackendUnavailable,
        match="targets add board --host USER@BOARD`, then `harness targets check board",
    ):
        open_backend(Target("board", "onnxruntime", board=("Pi",)))


def test_on_the_board_itself_no_host_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    monkeypatch.setattr(registry, "DEVICE_TREE_MODEL", model)
    target = Target("raspberry-pi", "onnxruntime", board=("Raspberry Pi",))
    for text in ("NVIDIA Jetson Orin Nano Developer Kit\0", None):
        model.write_text(text) if text else model.unlink()
        with pytest.raises(BackendUnavailable, match="On the board itself no host is needed"):
            open_backend(target)
    model.write_text("Raspberry Pi 5 Model B Rev 1.0\0")
    assert open_backend(target).check_available()


def test_a_runtime_that_is_not_installed_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import importlib.metadata

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(BackendUnavailable, match="pip install onnxruntime"):
        open_backend(Target("t", "onnxruntime"))
