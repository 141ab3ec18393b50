"""What all commands share: consoles, and errors turned into one message and an exit code."""

from __future__ import annotations

import sys
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console


_LOG_WIDTH = 220
"""Columns where no terminal sets them: a log or a pipe must not lose cells to 80 columns."""


def stdout() -> Console:
    """Return the console for results."""
    return _console(to_stderr=False)


def stderr() -> Console:
    """Return the console for progress and errors."""
    return _console(to_stderr=True)


def _console(to_stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if to_stderr else sys.stdout
    width = None if stream.isatty() else _LOG_WIDTH
    return Console(stderr=to_stderr, highlight=False, width=width)


@contextmanager
def reported(interrupted: str = "Interrupted.") -> Iterator[None]:
    """Turn errors into one message on stderr and the exit code of their kind.

    Args:
        interrupted: What to say after Ctrl-C: what is kept, and how to go on.
    """
    try:
        yield
    except HarnessError as exc:
        stderr().print(f"[bold red]error:[/] {_plain(str(exc))}")
        raise typer.Exit(exc.exit_code) from None
    except KeyboardInterrupt:
        stderr().print(f"\n{_plain(interrupted)}")
        raise typer.Exit(130) from None
    except (typer.Exit, BrokenPipeError):
        raise
    except Exception:
        traceback.print_exc()
        stderr().print(
            "[bold red]internal error:[/] this is a bug; please report it with the lines above."
        )
        raise typer.Exit(5) from None


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
