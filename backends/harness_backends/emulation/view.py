"""A machine as an emulated program sees it: the shared root's folders, and files of its own.

QEMU's `-L` takes one folder, in which it looks for each absolute path before the host. A view is
such a folder: links to the root's `usr` and `lib`, beside a `proc` and `sys` of a few plain files.
So machines of several kinds share one root, and none can damage it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SHARED = ("usr", "lib")
"""Folders of the root that every view shows."""


def make_view(root: Path, folder: Path, files: Mapping[str, str]) -> None:
    """Make a view of a root.

    Args:
        root: Folder of the system's `usr` and `lib`.
        folder: Made, with relative links, so that both can be moved together.
        files: Texts by path relative to the folder.

    Raises:
        OSError: If it can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHARED:
        (folder / name).symlink_to(os.path.relpath(root / name, folder))
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
