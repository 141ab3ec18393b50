"""Functions that compute something else are told apart; those that compute the same are not."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.importing import load_object
from harness.tasks.identity import identity_of

DECORATED = """
@torch.no_grad()
def loss(o, t):
    return o.sum() * X
"""
MEMBERS = """
from dataclasses import dataclass
@dataclass(frozen=True)
class Weights:
    names: frozenset = frozenset({"a", "b", "c"})
    value: float = X
    def total(self):
        return self.value + (1 if "a" in self.names else 0)
def loss(o, t):
    return o.sum() * Weights().total()
"""
WRITTEN = {
    "constant": "def loss(o, t): return o.sum() * X",
    "nested": "def loss(o, t):\n    return (lambda x: x * X)(o.sum())",
    "default": "def loss(o, t, k=X): return o.sum() * k",
    "keyword-only": "def loss(o, t, *, k=X): return o.sum() * k",
    "global": "K = X\ndef loss(o, t): return o.sum() * K",
    "global-list": "K = [X]\ndef loss(o, t): return o.sum() * K[0]",
    "global-tensor": "K = torch.full((5,), X)\ndef loss(o, t): return o.sum() * K[0]",
    "neighbour": "def k(): return X\ndef loss(o, t): return o.sum() * k()",
    "neighbours-neighbour":
        "def j(): return X\ndef k(): return j()\ndef loss(o, t): return o.sum() * k()",
    "recursion":
        "def k(n): return loss(0, 0, n) * X\ndef loss(o, t, n=3): return k(n - 1) if n else o",
    "attribute": "def loss(o, t): return o.sum() * loss.k\nloss.k = X",
    "class": "class K:\n    k = X\ndef loss(o, t): return o.sum() * K.k",
    "base": "class A:\n    k = X\nclass K(A): pass\ndef loss(o, t): return o.sum() * K.k",
    "method": "class K:\n    def f(self): return X\ndef loss(o, t): return o.sum() * K().f()",
    "object": "from types import SimpleNamespace\nK = SimpleNamespace(k=X)\n"
              "def loss(o, t): return o.sum() * K.k",
    "pattern": "import re\nK = re.compile('X')\ndef loss(o, t): return o.sum() * len(K.pattern)",
    "bound": "class K:\n    def __init__(self): self.k = X\n"
             "    def f(self, o, t): return o.sum() * self.k\nloss = K().f",
    "cached": "import functools\n@functools.cache\ndef k(): return X\n"
              "def loss(o, t): return o.sum() * k()",
    "decorated": DECORATED,
    "dataclass": MEMBERS,
}  # fmt: skip


def written(source: str, x: float) -> str:
    """Return the identity of `loss` in a source that is in no file, as in a notebook."""
    scope: dict[str, Any] = {"__name__": "notebook", "torch": torch}
    exec(compile(source.replace("X", str(x)), "<string>", "exec", dont_inherit=True), scope)
    return identity_of(scope["loss"])


@pytest.mark.parametrize("kind", WRITTEN)
def test_one_other_number_anywhere_is_another_function(kind: str) -> None:
    assert written(WRITTEN[kind], 0.5) != written(WRITTEN[kind], 50.0)
    assert written(WRITTEN[kind], 0.5) == written(WRITTEN[kind], 0.5)


def test_what_a_function_does_not_use_does_not_count() -> None:
    source = "UNUSED = X\ndef loss(o, t): return o.sum()"
    assert written(source, 0.5) == written(source, 50.0)


class Own(torch.nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.inner = torch.nn.Softplus(beta=scale)


class Listed(torch.nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scales = [1.0, scale]


def long_tensor(last: float) -> Any:
    tensor = torch.zeros(2000)
    tensor[1000] = last
    return functools.partial(torch.nn.functional.cross_entropy, weight=tensor)


@pytest.mark.parametrize("make", [Own, Listed, long_tensor])
def test_one_other_number_in_an_object_is_another_function(make: Any) -> None:
    assert identity_of(make(1.0)) != identity_of(make(1.0 + 1e-6))
    assert identity_of(make(1.0)) == identity_of(make(1.0))


def in_a_file(folder: Path, loss: str, **files: str) -> str:
    for name, text in {**files, "l": loss}.items():
        (folder / f"{name}.py").write_text(text)
    found = identity_of(load_object(f"{folder / 'l.py'}:loss", "--loss"))
    for name in [n for n in sys.modules if n in files or n.startswith("_harness_user_l_")]:
        del sys.modules[name]
    return found


@pytest.mark.parametrize(
    "loss",
    [
        "import other_one\ndef loss(o, t): return o.sum() * other_one.K",
        "import other_one\ndef loss(o, t): return o.sum() * other_one.f()",
        "from other_one import K\ndef loss(o, t): return o.sum() * K",
        "from other_one import f\ndef loss(o, t): return o.sum() * f()",
        "def loss(o, t):\n    import other_one\n    return o.sum() * other_one.K",
        "def loss(o, t):\n    from other_one import f\n    return o.sum() * f()",
    ],
)
@pytest.mark.parametrize("direct", [True, False])
def test_an_imported_neighbour_of_other_content_is_another_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str, direct: bool
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # edits within a second are edits
    found = []
    for k in ("1", "2", "1"):
        held = f"K = {k}\ndef f(): return K\n"
        files = {"other_two": held, "other_one": held if direct else "from other_two import *\n"}
        found.append(in_a_file(tmp_path, loss, **files))
    assert found[0] != found[1]
    assert found[0] == found[2]


def test_what_can_not_be_told_from_others_is_unlike_any() -> None:
    def guarded(lock: Any) -> Any:
        return lambda outputs, targets: lock and outputs.sum()

    one, other = threading.Lock(), threading.Lock()
    assert identity_of(guarded(one)) != identity_of(guarded(other))
    assert identity_of(guarded(one)) == identity_of(guarded(one))


def test_what_can_not_be_described_is_unlike_what_was_before_it() -> None:
    found = set()
    for value in range(5):
        numbers = (value for _ in range(3))
        found.add(identity_of(lambda outputs, targets, numbers=numbers: next(numbers)))
        del numbers
    assert len(found) == 5


def test_losses_of_torchscript_are_told_apart() -> None:
    def made(scale: float) -> Any:
        torch.manual_seed(0)
        return torch.jit.script(torch.nn.CrossEntropyLoss(label_smoothing=scale))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert identity_of(made(0.1)) == identity_of(made(0.1)) != identity_of(made(0.2))


def test_large_arrays_are_hashed_in_little_memory() -> None:
    one, other = np.zeros(10**6), np.zeros(10**6)
    other[-1] = 1.0
    tracemalloc.start()
    found = {identity_of(lambda o, t, x=x: x) for x in (one, other)}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 2
    assert peak < 3 * one.nbytes


def test_a_neighbour_that_ends_the_process_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ending_neighbour.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)

    def loss(outputs: Any, targets: Any) -> Any:
        if outputs is None:
            import ending_neighbour  # noqa: F401
        return outputs

    assert identity_of(loss)


def test_the_next_process_finds_the_same(tmp_path: Path) -> None:
    sources = [source.replace("X", "0.5") for source in WRITTEN.values()]
    code = (
        "import torch\nfrom harness.tasks.identity import identity_of\n"
        f"for source in {sources!r}:\n"
        "    scope = {'__name__': 'notebook', 'torch': torch}\n"
        "    exec(source, scope)\n    print(identity_of(scope['loss']))\n"
    )
    root = Path(__file__).resolve().parents[2]
    for seed in ("1", "2"):
        ended = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
        )  # fmt: skip
        assert ended.stdout.split() == [written(source, 0.5) for source in WRITTEN.values()]
