"""Weights from a file, without running anything that the file says: no pickle."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from harness.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts put the weights; the first that is there is taken."""
_SAVE = 'torch.save(model.state_dict(), "weights.pt")'


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights in a file, by name, on the CPU.

    Args:
        path: `.safetensors`, or what `torch.save` writes: `.pt`, `.pth`, `.bin` or `.ckpt`.

    Raises:
        ConfigError: If the file is missing, broken, of another kind, needs pickle, or holds
            something else than weights by name.
    """
    _check_file(path)
    found = _safetensors(path) if path.suffix.lower() == ".safetensors" else _torch_file(path)
    while isinstance(found, Mapping):
        inner = next((found[key] for key in _WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        found = inner
    if not isinstance(found, Mapping) or not found:
        raise ConfigError(
            f"{path} must hold weights by name. Received: {_shown(found)}. Run where it was made: "
            f"{_SAVE}"
        )
    for name, value in found.items():
        if not isinstance(value, torch.Tensor):
            raise ConfigError(
                f"{path} must hold tensors by name. Received {type(value).__name__} under "
                f"{name!r}. Run where it was made: {_SAVE}"
            )
    return {str(name): value for name, value in found.items()}


def _check_file(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"`--weights` must be a file that ends in {', '.join(SUFFIXES)}. Received: "
            f"{str(path)!r}."
        )
    head = _head(path)
    if not head:
        raise ConfigError(f"`--weights {path}` is empty. Copy or download it again.")
    if head.startswith(b"version https://git-lfs"):
        raise ConfigError(
            f"`--weights {path}` is a Git LFS pointer, not the weights. Run `git lfs pull` in its "
            "repository."
        )
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ConfigError(
            f"`--weights {path}` is a web page, not weights: the download was answered by a page. "
            "Download it again, from the address of the file itself."
        )


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as exc:
        raise ConfigError(f"`--weights {path}` can't be read: {exc.strerror}.") from exc


def _safetensors(path: Path) -> Mapping[str, Any]:
    try:
        return load_file(path)
    except Exception as exc:  # its own errors, and OSError or MemoryError
        raise _broken(path, exc) from exc


def _torch_file(path: Path) -> Any:
    """Return what `torch.save` wrote, where it is tensors, numbers and texts only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats, of which the error below tells
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:  # unpicklers raise what they come upon
        text = str(exc)
        if "TorchScript" in text:
            raise ConfigError(
                f"`--weights {path}` is a TorchScript program. Weights alone are needed: run "
                f'`model = torch.jit.load("{path.name}")` and {_SAVE}'
            ) from exc
        culprit = re.search(r"GLOBAL (\S+)", text)
        if culprit or (isinstance(exc, pickle.UnpicklingError) and _head(path)[:1] == b"\x80"):
            what = f" ({culprit.group(1)})" if culprit else ""
            raise ConfigError(
                f"`--weights {path}` holds Python objects{what}, which only pickle can load, and "
                "pickle runs whatever the file says: so it is refused. Save weights alone where "
                f"it was made: {_SAVE}"
            ) from exc
        raise _broken(path, exc) from exc


def _broken(path: Path, exc: Exception) -> ConfigError:
    # One sentence: torch's next ones advise to load the file by pickle all the same.
    reason = (str(exc).splitlines() or [""])[0].partition(". ")[0]
    return ConfigError(
        f"`--weights {path}` can't be read as {path.suffix}: it is cut off, damaged or of another "
        f"kind ({type(exc).__name__}: {reason}). Copy or download it again, or save it anew: "
        f"{_SAVE}"
    )


def _shown(found: object) -> str:
    return "an empty dictionary" if isinstance(found, Mapping) else type(found).__name__
