"""A task file: model, data and the usual options of a search in TOML, for repeated work."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEXT, _NUMBER, _TABLE = (str,), (int, float, str), (dict,)
_TASK: dict[str, tuple[type, ...]] = {
    "model": _TEXT, "data": (str, dict), "weights": _TEXT, "trained": (bool,), "name": _TEXT,
    "loss": _TEXT, "metric": _TEXT, "augment": _TEXT, "train_fraction": _NUMBER,
    "coreset": _TEXT, "recipe": _TABLE, "search": _TABLE,
}  # fmt: skip
_SEARCH: dict[str, tuple[type, ...]] = {
    "target": _TEXT, "budget": _TEXT, "trials": _NUMBER, "time": _TEXT, "seed": _NUMBER,
    "study": _TEXT, "statistic": _TEXT, "max_drop": _TEXT, "max_size": _TEXT,
    "layers": (str, list), "exclude": (str, list), "blocks": (str, list), "precision": (str, list),
    "threads": _NUMBER, "settings": (list,), "results": _TEXT,
}  # fmt: skip
_WORDS = {str: "text", bool: "true or false", dict: "a table", list: "a list", int: "a number"}


def is_task_file(task: object) -> bool:
    """Whether a task is given as a file, not as a name."""
    return isinstance(task, Path) or (isinstance(task, str) and task.endswith(".toml"))


def read_task_file(path: Path) -> dict[str, Any]:
    """Return what a task file says, by option; `base` is its folder.

    Raises:
        ConfigError: If it can't be read, a key is unknown, or a value is of the wrong kind.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it isn't UTF-8 text"
        raise ConfigError(
            f"The task file {path} can't be read: {reason}. Write one with `harness init`."
        ) from exc
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"The task file {path} is no TOML: {exc}.") from exc
    _check(content, _TASK, f"{path}")
    for key in ("model", "data"):
        if key not in content:
            raise ConfigError(f"The task file {path} lacks `{key}`. Add it; see `harness init`.")
    search = content.pop("search", {})
    _check(search, _SEARCH, f"{path}, [search]")
    base = path.resolve().parent
    for key in ("model", "loss", "metric"):
        if key in content:
            content[key] = beside(content[key], base)
    if "weights" in content:
        content["weights"] = str(base / content["weights"])
    if "results" in search:
        search["results"] = str(base / search["results"])
    return {**content, **search, "base": base}


def beside(text: str, base: Path) -> str:
    """Return a spec whose file, if it names one, is looked for in a folder."""
    if text.startswith("onnx:"):
        return f"onnx:{base / text.removeprefix('onnx:')}"
    place, colon, name = text.rpartition(":")
    return f"{base / place}:{name}" if colon and place.endswith(".py") else text


def _check(content: Mapping[str, Any], known: Mapping[str, tuple[type, ...]], source: str) -> None:
    for key, value in content.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            if known is _TASK and key in _SEARCH:
                hint = " It belongs in the table [search]."
            raise ConfigError(
                f"{source}: unknown key {key!r}. Expected some of: {', '.join(known)}.{hint}"
            )
        kinds = known[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            expected = " or ".join(_WORDS[kind] for kind in kinds if kind in _WORDS)
            raise ConfigError(f"{source}: {key} must be {expected}. Received: {value!r}.")
        if isinstance(value, list) and not all(isinstance(one, str) for one in value):
            raise ConfigError(f"{source}: {key} must be a list of texts. Received: {value!r}.")


TEMPLATE = """\
# A task: a network and its data. Search with
#     harness search --task {name}
# Every line that starts with a '#' shows a default or an example; paths are relative to this file.

# What to compress: a shipped model (see `harness models`), "file.py:factory",
# "pkg.module:factory", "onnx:FILE", "timm:NAME" or "torchvision:NAME".
model = "small-cnn"
# weights = "weights.safetensors"     # or .pt, .pth: a state dict
# trained = false                     # true: the factory's network is trained already

# What to learn from: a folder of images by class, FILE.parquet (image bytes, label), FILE.npz,
# FILE.csv, "fashion-mnist", "digits", or "file.py:factory". Without explicit splits, validation
# and test are split off, always in the same way.
data = "digits"

# name = "parts"                      # in the names of studies; made from model and data
# augment = "flip+shift"              # of training images: flip, shift, cutout
# loss = "cross_entropy"              # regression: mse, mae, huber; or "file.py:function"
# metric = "accuracy"                 # balanced_accuracy, f1_macro; regression: r2, ...
# train_fraction = 0.3                # candidates train on this part of the training split,
# coreset = "k-center"                # chosen so: random, k-center, herding

# Or, in place of the line `data = ...`, a table with the options of `--data`:
# [data]
# train = "train.parquet"
# val = "val.parquet"
# test = "test.parquet"
# size = 32                           # resize images
# normalize = "auto"                  # or imagenet, cifar10, none, ...

# [recipe]                            # training; what is left out depends on the samples
# teacher_epochs = 10                 # of the dense model; 0 takes its weights as they are
# trial_epochs = 2                    # of a candidate
# batch = 64
# optimizer = "adamw"                 # or sgd
# teacher_lr = 0.002
# trial_lr = 0.001
# weight_decay = 0.01

[search]                              # what a command line says overrides these
target = "cpu"
budget = "50%"
# time = "10min"
# trials = 40
# max_drop = "1pt"
# max_size = "2MB"
# blocks = "none"                     # residual blocks that may be left out; else all
# precision = "fp32,int8"             # what files may compute in; also fp16, int8-dynamic
# results = "results"
"""
"""What `harness init` writes; `{name}` is the file's name."""
