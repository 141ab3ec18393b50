"""What distinguishes a user's loss or metric from another of the same name."""

from __future__ import annotations

import contextlib
import copyreg
import dis
import functools
import hashlib
import importlib
import sys
import sysconfig
import types
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_PLAIN = (types.NoneType, bool, int, float, complex, str, types.EllipsisType)
"""Types whose `repr` tells every value from every other."""
_DEEPEST = 100
"""Objects within each other that are looked into."""
_PROCESS = uuid.uuid4().hex
_undescribed: dict[int, Any] = {}
"""Objects that can't be described, kept so that no other gets the number of one."""
_LIBRARIES = (sysconfig.get_paths()["stdlib"], str(Path(__file__).parents[1]))


def identity_of(given: Any) -> str:
    """Return a text that is another for a function that computes something else.

    It covers a function's code and the file in which it was written, what it was bound to, and the
    values, functions, classes and modules of the user's own that it refers to by name, with all
    that these refer to; of other objects, such as modules with their weights, all that pickle would
    keep. Installed packages count by name. A global that the function itself changes makes it
    another one. Where an object can't be told from others, the text is
    another in every process: then nothing is resumed or taken from a cache wrongly.
    """
    if given is None or isinstance(given, (str, int, float, bool)):
        return str(given)
    return _Describer().describe(given)[:16]


class _Describer:
    """Describes objects by hashes of all that they are made of."""

    def __init__(self) -> None:
        self._open: list[int] = []
        self._known: dict[int, tuple[Any, str]] = {}

    def describe(self, given: Any) -> str:
        """Return a text for an object that is another for an object of other content."""
        if type(given) is bytes:  # perhaps those of a large array
            return f"bytes {hashlib.sha256(given).hexdigest()}"
        if type(given) in _PLAIN:
            return f"{type(given).__name__} {given!r}"
        key = id(given)
        if key in self._known:
            return self._known[key][1]
        if key in self._open:
            return f"within itself, from level {self._open.index(key)}"
        if len(self._open) >= _DEEPEST:
            return _unlike_any(given)
        self._open.append(key)
        try:
            text = hashlib.sha256(repr(self._parts(given)).encode("utf-8", "replace")).hexdigest()
        except Exception:  # locks, open files, whatever a user's own __reduce__ raises
            text = _unlike_any(given)
        finally:
            self._open.pop()
        self._known[key] = given, text  # kept: no other object gets its id meanwhile
        return text

    def _all(self, objects: Iterable[Any]) -> tuple[str, ...]:
        return tuple(self.describe(one) for one in objects)

    def _parts(self, given: Any) -> tuple[Any, ...]:
        kind = type(given).__name__
        if isinstance(given, types.FunctionType):
            return kind, *self._function(given)
        if isinstance(given, types.CodeType):
            return kind, *self._code(given)
        if isinstance(given, type):
            return kind, *self._class(given)
        if isinstance(given, types.ModuleType):
            return kind, *self._module(given, frozenset())
        if isinstance(given, torch.Tensor):
            return kind, *_tensor(given)
        if isinstance(given, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
            return kind, str(given.code), self.describe(_state(given))
        held = _held(given)
        if held is None:
            return kind, *self._reduced(given)
        texts = self._all(held)
        return kind, *(sorted(texts) if isinstance(given, (set, frozenset)) else texts)

    def _function(self, given: types.FunctionType) -> tuple[Any, ...]:
        cells = self._all(_content(cell) for cell in given.__closure__ or ())
        attributes, scope = self.describe(vars(given)), given.__globals__
        if _is_library(scope):
            return scope.get("__name__"), given.__qualname__, cells, attributes
        codes = list(_codes(given.__code__))
        attribute_names = frozenset(name for code in codes for name in code.co_names)
        names = {name for code in codes for name in _global_names(code)}
        used = {name: scope[name] for name in sorted(names) if name in scope}
        modules = [m for code in codes for m in _imported(code, scope.get("__package__"))]
        return (
            given.__qualname__, _file_hash(given.__code__.co_filename),
            self.describe(given.__code__), cells, attributes,
            self._all((given.__defaults__, given.__kwdefaults__)),
            self._named(used, attribute_names),
            [self._module(module, attribute_names) for module in modules],
        )  # fmt: skip

    def _named(
        self, values: Mapping[str, Any], names: frozenset[str]
    ) -> list[tuple[str, str | tuple[Any, ...]]]:
        """Describe values by name; of modules, what goes by one of `names`."""
        return [
            (name, self._module(value, names))
            if isinstance(value, types.ModuleType)
            else (name, self.describe(value))
            for name, value in values.items()
        ]

    def _module(self, given: types.ModuleType, names: frozenset[str]) -> tuple[Any, ...]:
        held = vars(given)
        if _is_library(held) or id(given) in self._open:
            return (given.__name__,)
        self._open.append(id(given))
        try:
            used = {name: held[name] for name in sorted(names) if name in held}
            return _file_hash(held.get("__file__")), self._named(used, names)
        finally:
            self._open.pop()

    def _code(self, given: types.CodeType) -> tuple[Any, ...]:
        return (
            given.co_code.hex(), given.co_names, given.co_varnames, given.co_freevars,
            given.co_cellvars, given.co_argcount, given.co_kwonlyargcount, given.co_flags,
            self._all(given.co_consts),
        )  # fmt: skip

    def _class(self, given: type) -> tuple[Any, ...]:
        module = sys.modules.get(given.__module__)
        scope = {"__name__": given.__module__} if module is None else vars(module)
        if _is_library(scope):
            return given.__module__, given.__qualname__
        held = {
            name: value
            for name, value in sorted(vars(given).items())
            if isinstance(value, (types.FunctionType, staticmethod, classmethod, property))
            or not name.startswith(("__", "_abc_"))
        }
        bases, source = self._all(given.__bases__), _file_hash(scope.get("__file__"))
        return given.__qualname__, source, bases, self._named(held, frozenset())

    def _reduced(self, given: Any) -> tuple[Any, ...]:
        """Describe what pickle would keep: it refuses what has more to it than can be seen."""
        registered = copyreg.dispatch_table.get(type(given))
        kept = given.__reduce_ex__(4) if registered is None else registered(given)
        if isinstance(kept, str):  # a name in its module
            wrapped = getattr(given, "__wrapped__", None)  # as functools.cache leaves it
            module = getattr(given, "__module__", None) if wrapped is None else None
            return module, kept, self.describe(wrapped)
        make, arguments, state, *items = (*kept, None, None, None)[:5]
        more = [self.describe(list(one)) for one in items if one is not None]
        return self.describe(make), self._all(arguments), self.describe(state), more


def _unlike_any(given: Any) -> str:
    _undescribed[id(given)] = given
    return f"{_PROCESS} {id(given)}"


def _state(given: Any) -> dict[str, Any]:
    return dict(given.state_dict()) if isinstance(given, torch.jit.ScriptModule) else {}


def _held(given: Any) -> list[Any] | None:
    """Return what a plain container or a wrapper of functions holds; None for other objects."""
    if isinstance(given, (staticmethod, classmethod)):
        return [given.__func__]
    if isinstance(given, property):
        return [given.fget, given.fset, given.fdel]
    if isinstance(given, functools.cached_property):
        return [given.func]
    if type(given) in (dict, types.MappingProxyType):
        return [part for pair in given.items() for part in pair]
    return list(given) if type(given) in (list, tuple, set, frozenset) else None


def _tensor(given: torch.Tensor) -> tuple[Any, ...]:
    flat = given.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return str(given.dtype), tuple(given.shape), hashlib.sha256(flat.numpy().data).hexdigest()


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return "an empty cell"


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a function's code and that of the functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _global_names(code: types.CodeType) -> Iterator[str]:
    for one in dis.get_instructions(code):
        if one.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield one.argval


def _imported(code: types.CodeType, package: str | None) -> Iterator[types.ModuleType]:
    """Yield the modules that a function imports when it is called."""
    steps = [one for one in dis.get_instructions(code) if one.opname != "EXTENDED_ARG"]
    for i, one in enumerate(steps):
        if one.opname == "IMPORT_NAME":
            level = steps[i - 2].argval  # pushed before, with the names to take from the module
            with contextlib.suppress(Exception, SystemExit):  # absent, and perhaps not needed
                yield importlib.import_module("." * level + one.argval, package)


def _is_library(scope: Mapping[str, Any]) -> bool:
    """Whether a module's namespace is an installed package's, not the user's own."""
    name, file = str(scope.get("__name__")), scope.get("__file__")
    root = name.partition(".")[0]
    if root == "__main__":
        return False
    if not file or not Path(file).is_absolute():  # built in, or made when its package was loaded
        file = getattr(sys.modules.get(root), "__file__", None)
        if file is None:
            return root in sys.stdlib_module_names
    path = Path(file)
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return bool(installed) or any(path.is_relative_to(folder) for folder in _LIBRARIES)


def _file_hash(path: str | None) -> str:
    """Return the hash of a source file; empty where there is none, as in a notebook."""
    try:
        return hashlib.sha256(Path(path or "").read_bytes()).hexdigest()
    except OSError:
        return ""
