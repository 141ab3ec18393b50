"""Objects of the user's own Python code, by name: `pkg.module:name` or `path/file.py:name`."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError, HarnessError

if TYPE_CHECKING:
    from collections.abc import Iterator


_OURS = Path(__file__).parent
_SHOWN = 10
"""Names of a module that an error lists."""
_folders: set[Path] = set()
"""Folders of the user's code that were put on the module path here."""


def load_object(spec: str, option: str) -> Any:
    """Return the object that a text names.

    Args:
        spec: `pkg.module:name`, where the current folder is importable, or `path/file.py:name`,
            where the file's folder is; the name may be dotted.
        option: Who asked, such as `--model`; for messages.

    Raises:
        ConfigError: If there is no such file, module or name, or if the user's code fails.
    """
    place, colon, name = spec.rpartition(":")
    if not (colon and place and name):
        raise ConfigError(
            f"{option} must be 'pkg.module:name' or 'path/file.py:name'. Received: {spec!r}."
        )
    is_file = place.endswith(".py")
    module = _file_module(Path(place), option) if is_file else _named_module(place, option)
    with user_code(spec, option):  # properties may fail
        return _attribute(module, name, place, option)


@contextlib.contextmanager
def user_code(subject: str, option: str) -> Iterator[None]:
    """Turn what the user's code raises into a `ConfigError`: its type, text and file:line.

    Args:
        subject: What runs, such as `my_models.py:build`.
        option: Who asked for it, such as `--model`.

    Raises:
        ConfigError: If the code raises anything, or tries to exit. Our own errors pass as they are.
    """
    try:
        yield
    except HarnessError:
        raise
    except (Exception, SystemExit) as exc:
        place = _place(exc)
        advice = (
            "Mend it there, and try it in plain Python first."
            if place
            else "Try the same in plain Python: no line of a file of yours was at work."
        )
        raise ConfigError(f"{option}: {subject} failed{place}: {_text(exc)}. {advice}") from exc


def _file_module(path: Path, option: str) -> ModuleType:
    try:
        source = path.read_bytes()
    except OSError as exc:
        raise ConfigError(
            f"{option} names the Python file {str(path)!r}, which can't be read: {exc.strerror}. "
            "Paths are relative to the current folder."
        ) from exc
    path = path.resolve()
    # Named by place and content: two options that name one file share its module and so its
    # classes, and a file that was edited in between is loaded anew.
    digest = hashlib.sha256(str(path).encode() + b"\0" + source).hexdigest()[:12]
    name = f"_harness_user_{path.stem}_{digest}".replace("-", "_")
    if name in sys.modules:
        return sys.modules[name]
    _make_importable(path.parent)
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None and found.loader is not None  # noqa: PT018 - it ends in .py
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # before it runs: dataclasses look their module up
    try:
        with user_code(str(path), option):
            found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _named_module(name: str, option: str) -> ModuleType:
    _make_importable(Path.cwd())
    importlib.invalidate_caches()  # the file may be younger than the last look at its folder
    try:
        with user_code(f"module {name!r}", option):
            module = importlib.import_module(name)
    except ConfigError as exc:
        absent = exc.__cause__
        if not isinstance(absent, ModuleNotFoundError) or not absent.name:
            raise
        if f"{name}.".startswith(f"{absent.name}."):
            raise ConfigError(
                f"{option} names the module {name!r}, but there is no module {absent.name!r} here. "
                "Install it, run in the folder that holds it, or name a file: "
                "'path/file.py:name'."
            ) from absent
        raise  # the module is there; what it imports isn't
    _check_not_hidden(module, name, option)
    return module


def _check_not_hidden(module: ModuleType, name: str, option: str) -> None:
    """Refuse a module from elsewhere that hides the current folder's file of its name.

    Raises:
        ConfigError: If it does.
    """
    here = Path.cwd() / f"{name.replace('.', '/')}.py"
    found = getattr(module, "__file__", None)
    if here.is_file() and not (found and Path(found).resolve().is_relative_to(Path.cwd())):
        raise ConfigError(
            f"{option} names the module {name!r}, which is another one than {here}: "
            f"{found or 'built into Python'}. Name the file, '{here.relative_to(Path.cwd())}:NAME',"
            " or rename it."
        )


def _make_importable(folder: Path) -> None:
    """Put a folder first on the module path, as Python does for a script.

    For good, since the user's functions may import their neighbours when they are called.
    """
    if str(folder) in sys.path:
        sys.path.remove(str(folder))
    else:
        _folders.add(folder)
    sys.path.insert(0, str(folder))
    _forget_namesakes(folder)


def _forget_namesakes(folder: Path) -> None:
    """Forget modules of the user's other folders where this one has a module of that name.

    What was loaded with them keeps them, but for what its functions import when they are called.
    """
    roots = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    known = [(name, name.partition(".")[0], module) for name, module in sys.modules.items()]
    gone = {
        root
        for name, root, module in known
        if root in roots and _home(name, module) in _folders - {folder}
    }
    for name, root, _ in known:
        if root in gone:
            del sys.modules[name]


def _home(name: str, module: ModuleType) -> Path | None:
    """Return the folder from which a module, or the package that it is in, was imported."""
    about = getattr(module, "__dict__", {})  # as some modules load what they are asked for
    if not about.get("__file__"):
        return None
    return Path(about["__file__"]).resolve().parents[name.count(".") + ("__path__" in about)]


def _attribute(module: ModuleType, name: str, place: str, option: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            names = [known for known in dir(found) if not known.startswith("_")]
            near = difflib.get_close_matches(part, names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            own = [known for known in names if _is_own(found, known)]
            more = ", ..." if len(own) > _SHOWN else ""
            listed = f" It has: {', '.join(own[:_SHOWN])}{more}." if own else ""
            raise ConfigError(f"{option}: {place} has no {part!r}.{listed}{hint}")
        found = getattr(found, part)
    return found


def _is_own(holder: Any, name: str) -> bool:
    """Return whether something that can be called was made there, and not just imported."""
    try:
        value = getattr(holder, name)
    except Exception:  # properties may fail
        return False
    if not isinstance(holder, ModuleType) or not callable(value):
        return False
    made_here = getattr(value, "__module__", None) == holder.__name__
    return made_here or not (inspect.isclass(value) or inspect.isroutine(value))


def _place(exc: BaseException) -> str:
    """Return ` at file:line`, where the user's own code went wrong; empty if none of it ran."""
    if isinstance(exc, SyntaxError) and exc.filename:
        return f" at {exc.filename}:{exc.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(exc.__traceback__)
        if frame.filename != __file__ and not frame.filename.startswith("<frozen")
    ]
    paths = sysconfig.get_paths()
    libraries = (*(paths[key] for key in ("stdlib", "purelib", "platlib")), str(_OURS))
    own = [frame for frame in frames if not frame.filename.startswith(libraries)]
    return f" at {own[-1].filename}:{own[-1].lineno}" if own else ""


def _text(exc: BaseException) -> str:
    words = str(exc).rstrip(".")
    return f"{type(exc).__name__}: {words}" if words else type(exc).__name__
