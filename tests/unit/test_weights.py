from __future__ import annotations

import argparse
import io
import os
import pickle
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from harness.errors import ConfigError
from harness.models.weights import fit_state, load_weights
from harness.models.weights_file import read_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def network(outputs: int = 3, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = OrderedDict(
            conv=nn.Conv2d(1, 4, 3), bn=nn.BatchNorm2d(4), pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(), head=nn.Linear(4, outputs),
        )  # fmt: skip
        return nn.Sequential(layers)


def same(left: nn.Module, right: nn.Module) -> bool:
    state = right.state_dict()
    return all(torch.equal(tensor, state[name]) for name, tensor in left.state_dict().items())


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in network(seed=1).state_dict().items()}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".PT"])
@pytest.mark.parametrize("wrap", [None, "state_dict", "model_state_dict", "model"])
def test_what_training_scripts_save_loads(tmp_path: Path, suffix: str, wrap: str | None) -> None:
    state: dict[str, Any] = dict(network(seed=1).state_dict())
    path = tmp_path / f"weights{suffix}"
    torch.save({wrap: state, "epoch": 3, "optimizer": {"lr": 0.1}} if wrap else state, path)
    loaded = network()
    assert load_weights(loaded, path) == ()
    assert same(loaded, network(seed=1))


def test_safetensors_load(tmp_path: Path) -> None:
    save_file(network(seed=1).state_dict(), tmp_path / "w.safetensors")
    loaded = network()
    assert load_weights(loaded, tmp_path / "w.safetensors") == ()
    assert same(loaded, network(seed=1))


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod."])
def test_what_wrappers_put_before_names_is_taken_off(prefix: str) -> None:
    loaded = network()
    (note,) = fit_state(loaded, prefixed(prefix), "w")
    assert repr(prefix) in note
    assert same(loaded, network(seed=1))


def test_a_prefix_that_is_the_networks_own_stays() -> None:
    loaded = nn.ModuleDict({"model": network()})
    assert fit_state(loaded, prefixed("model."), "w") == ()
    assert same(loaded["model"], network(seed=1))


def test_a_prefix_of_some_names_only_stays() -> None:
    state = dict(network(seed=1).state_dict())
    state["module.conv.weight"] = state.pop("conv.weight")
    with pytest.raises(
        ConfigError, match=r"lacks: 1 of 9 \(conv\.weight\); .*know: 1 of 9 \(module\.conv"
    ):
        fit_state(network(), state, "w")


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn]
)
def test_other_precisions_are_converted_and_told(dtype: torch.dtype) -> None:
    state = {n: t.to(dtype) if t.is_floating_point() else t
             for n, t in network(seed=1).state_dict().items()}  # fmt: skip
    loaded = network()
    (note,) = fit_state(loaded, state, "w")
    assert f"{str(dtype).removeprefix('torch.')} to float32" in note
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.conv.weight, state["conv.weight"].float())


def test_another_number_of_classes_is_told_as_such() -> None:
    with pytest.raises(ConfigError, match=r"All but the last layer, 'head', fits") as caught:
        fit_state(network(10), network(1000).state_dict(), "`--weights w.pt`")
    assert "head.weight ([1000, 4] float32 instead of [10, 4] float32)" in str(caught.value)


def test_another_network_is_told_as_such_and_names_are_few() -> None:
    state = {f"other.{i}": torch.zeros(1) for i in range(9)}
    with pytest.raises(ConfigError, match="No name fits") as caught:
        fit_state(network(), state, "w")
    text = str(caught.value)  # batch norm's counter has been optional since torch 0.4
    assert "the file that the network doesn't know: 9 of 9 (other.0, other.1, other.2, ...)" in text
    assert "network that the file lacks: 8 of 9 (conv.weight, conv.bias, bn.weight, ...)" in text


def test_missing_unknown_and_misshapen_weights_are_one_message() -> None:
    state = dict(network().state_dict())
    state["extra"] = state.pop("conv.bias")
    state["bn.weight"] = torch.zeros(7)
    with pytest.raises(
        ConfigError,
        match=r"lacks: 1 of 9 .*; .*know: 1 of 9 .*; .*shape or type: 1 of 9 \(bn\.weight",
    ):
        fit_state(network(), state, "w")


def test_whole_numbers_are_no_weights() -> None:
    state = dict(network().state_dict())
    state["conv.weight"] = torch.zeros(4, 1, 3, 3, dtype=torch.int8)
    with pytest.raises(ConfigError, match="int8 instead of"):
        fit_state(network(), state, "w")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    state = network().state_dict()
    state["bn.running_var"][2] = value
    with pytest.raises(ConfigError, match=r"'bn\.running_var' is not finite"):
        fit_state(network(), state, "w")


def test_weights_that_float32_cannot_hold_are_refused() -> None:
    state = {n: t.double() for n, t in network().state_dict().items()}
    state["head.bias"][0] = 1e300
    with pytest.raises(ConfigError, match=r"'head\.bias' is not finite in float32"):
        fit_state(network(), state, "w")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind",
    [
        torch.Tensor.to_sparse,
        torch.Tensor.to_sparse_csr,
        lambda tensor: tensor.to("meta"),
        lambda tensor: torch.nested.nested_tensor([tensor]),
    ],
)
def test_tensors_that_are_not_dense_are_refused(
    kind: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    state = dict(network().state_dict())
    state["head.weight"] = kind(state["head.weight"])
    with pytest.raises(ConfigError, match=r"w: 'head\.weight' is a sparse, nested or meta tensor"):
        fit_state(network(), state, "w")


class Counting(nn.Linear):
    """Keeps something else than tensors in its state dict."""

    def get_extra_state(self) -> dict[str, int]:
        return {"seen": 3}

    def set_extra_state(self, state: dict[str, int]) -> None: ...


def test_state_that_is_no_tensor_is_not_asked_for() -> None:
    loaded = Counting(2, 2)
    assert fit_state(loaded, nn.Linear(2, 2).state_dict(), "w") == ()
    with pytest.raises(ConfigError, match=r"lacks: 1 of 2 \(bias\)"):
        fit_state(loaded, {"weight": torch.zeros(2, 2)}, "w")


class Refusing(nn.Linear):
    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        raise RuntimeError("not today")


def test_a_network_that_fails_to_load_is_told() -> None:
    with pytest.raises(ConfigError, match=r"^w: loading .*failed.*RuntimeError: not today"):
        fit_state(Refusing(2, 2), nn.Linear(2, 2).state_dict(), "w")


def test_tensors_that_layers_share_may_be_stored_once() -> None:
    shared = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    shared[1].weight = shared[0].weight
    state = {n: torch.ones_like(t) for n, t in shared.state_dict().items() if n != "1.weight"}
    fit_state(shared, state, "w")
    assert torch.equal(shared[1].weight, torch.ones(3, 3))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


def _saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def _script() -> bytes:
    buffer = io.BytesIO()
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), buffer)
    return buffer.getvalue()


STATE = network().state_dict()
PICKLED = r'only pickle can load.*torch\.save\(model\.state_dict\(\), "weights\.pt"\)'
BAD_FILES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty": ("w.pt", lambda: b"", "is empty"),
    "suffix": ("w.npz", lambda: b"x", r"ends in \.safetensors, \.pt"),
    "lfs": ("w.pt", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "git lfs pull"),
    "html": ("w.safetensors", lambda: b"\n<!DOCTYPE html><html></html>", "web page"),
    "cut off": ("w.pt", lambda: _saved(STATE)[:-300], "cut off"),
    "cut off, old": ("w.pt", lambda: _saved(STATE, _use_new_zipfile_serialization=False)[:-30],
                     "cut off"),
    "cut off safetensors": ("w.safetensors", lambda: b"\x10\0\0\0\0\0\0\0{}", "cut off"),
    "text": ("w.pt", lambda: b"hello\n" * 50, "another kind"),
    "noise": ("w.pt", lambda: bytes(range(1, 100)), "another kind"),
    "a whole network": ("w.pt", lambda: _saved(nn.Linear(2, 2)), rf"Linear\), which {PICKLED}"),
    "with arguments": ("w.pt", lambda: _saved({"state_dict": dict(STATE),
                                               "args": argparse.Namespace(lr=1)}),
                       rf"argparse\.Namespace\), which {PICKLED}"),
    "code": ("w.pt", lambda: _saved({"state_dict": dict(STATE), "x": Evil()}), PICKLED),
    "a plain pickle": ("w.ckpt", lambda: pickle.dumps({"a": [1]}), PICKLED),
    "a TorchScript program": ("w.pt", _script, r"torch\.jit\.load"),
    "a list": ("w.pt", lambda: _saved([torch.zeros(1)]), "weights by name. Received: list"),
    "nothing": ("w.pt", lambda: _saved({}), "an empty dictionary"),
    "other things": ("w.pt", lambda: _saved({"epoch": 3}), "Received int under 'epoch'"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_are_refused_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name, content, message = BAD_FILES[kind]
    (tmp_path / name).write_bytes(content())
    with pytest.raises(ConfigError, match=f"(?s){message}") as told:
        read_state(tmp_path / name)
    assert "weights_only" not in str(told.value)  # torch's own advice is to load by pickle
    assert not (tmp_path / "pwned").exists()


def test_a_folder_and_a_missing_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "w.pt").mkdir()
    with pytest.raises(ConfigError, match="Is a directory"):
        read_state(tmp_path / "w.pt")
    with pytest.raises(ConfigError, match="No such file"):
        read_state(tmp_path / "none.pt")
