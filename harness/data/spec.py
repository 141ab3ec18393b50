"""`--data`: a user's own samples, from a file, a folder or a function.

    SOURCE[,key=value...]
    train=SOURCE,val=SOURCE,test=SOURCE[,key=value...]

| SOURCE | what it is |
|---|---|
| a folder | images, a subfolder per class; or that in `train/`, `val/`, `test/` |
| `FILE.parquet`, or a folder of them | columns `image` (encoded) and `label`, as on the HF hub |
| `FILE.npz` | arrays `x` and `y`, or `x_train`, `y_train`, `x_test`, ... |
| `FILE.csv`, `FILE.tsv` | a table; `label=COLUMN` is needed |
| `fashion-mnist`, `fashion-mnist:FOLDER` | Debian's package, or files of MNIST's format |
| `digits` | scikit-learn's |
| `FILE.py:NAME`, `pkg.module:NAME` | a function that returns data sets |

| key | of | what it does |
|---|---|---|
| `label=` | csv, parquet | target column; several, joined by `+`, in a table |
| `image=` | parquet | column of encoded images |
| `drop=` | csv | columns to leave out, joined by `+` |
| `kind=` | parquet, npz, csv, functions | `classification` or `regression` |
| `size=` | images | `32` or `32x48` (height x width): resized, whole |
| `channels=` | images | `1` or `3` |
| `layout=` | arrays of images | `nchw` or `nhwc` |
| `normalize=` | all | `auto`, `imagenet`, `cifar10`, `none`, `0.5`, `m:m:m/s:s:s` |
| `test_fraction=`, `val_fraction=` | all | what is held out where it is not given |
| `split_seed=` | all | another division |

By default images and tables are scaled by the training split's mean and deviation (`auto`), per
channel or column, whether they come from files or functions; other arrays are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.data.assemble import assembled
from harness.data.augment import parse_augmentation
from harness.data.options import DataSpec, parse_data_spec
from harness.data.readers import read
from harness.data.readers.factory import from_object
from harness.data.samples import Listener
from harness.data.split import Data
from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.data.samples import Samples

__all__ = ["DataSpec", "data_spec", "load_data", "parse_data_spec"]
_GIVEN = DataSpec("factory", (("all", "data:data"),))
"""Stands for data that were given as Python objects."""


def load_data(
    spec: str | Mapping[str, Any] | DataSpec | Any,
    *,
    augment: str | None = None,
    base: Path | None = None,
    notify: Callable[[str], None] = lambda text: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Data:
    """Return a user's samples in three splits.

    Args:
        spec: What `--data` says, a table of the same keys, or that parsed; or from Python what a
            function named there may return.
        augment: How training images are varied, such as `"flip+shift"`; None for not at all.
        base: The folder that relative paths start from; None for the current one.
        notify: Told what is being done.
        advance: Told samples done and in all, while images are decoded.

    Raises:
        ConfigError: If the data can't be found, read, or learned from as they are.
    """
    asked = data_spec(spec, base) or _GIVEN
    augmentation = None if augment is None else parse_augmentation(augment, "--augment")
    listen = Listener(notify, advance)
    found = from_object(spec, "data", asked, listen) if asked is _GIVEN else _read(asked, listen)
    data = found if isinstance(found, Data) else assembled(found, asked)
    if augmentation is None:
        return data
    if data.train.inputs.ndim != 4:
        raise ConfigError(
            "`--augment` needs images. Received: samples of shape "
            f"{list(data.train.inputs.shape[1:])}."
        )
    return replace(data, train=replace(data.train, augmentation=augmentation))


def data_spec(spec: Any, base: Path | None) -> DataSpec | None:
    """Return what a text or a table says of data; None for data sets themselves."""
    if isinstance(spec, str):
        return parse_data_spec(spec, base)
    # A dict may also be one of data sets by split: then its values are no texts and numbers.
    if isinstance(spec, Mapping) and all(
        isinstance(v, (str, int, float, list)) for v in spec.values()
    ):
        return DataSpec.from_mapping(spec, base)
    return spec if isinstance(spec, DataSpec) else None


def _read(spec: DataSpec, listen: Listener) -> dict[str, Samples] | Data:
    parts: dict[str, Samples] = {}
    for name, place in spec.places:
        found = read(place, spec, listen)
        if name == "all":
            return found
        if isinstance(found, Data) or set(found) != {"all"}:
            raise ConfigError(
                f"{place} has splits of its own, so it can't be the {name} split. Name it alone."
            )
        parts[name] = found["all"]
    return parts
