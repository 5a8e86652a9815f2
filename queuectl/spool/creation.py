"""Makes a spool."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from queuectl import settings
from queuectl.errors import QueueError
from queuectl.job.model import State
from queuectl.spool import safety
from queuectl.spool.names import SHORTEST_LIMIT
from queuectl.spool.root import FOLDERS, ON_DEMAND, Root, make_folder
from queuectl.system import drafts, files, users

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: The modes of a spool for its owner alone, and of one for its group as well.
PRIVATE, SHARED = 0o700, 0o2770


def create(where: Path | str, mode: int | None = None) -> Root:
    """Make a spool at `where`, which may be an empty directory; raises `QueueError` for other places.

    `mode` is `PRIVATE` or `SHARED`. Without it a spool that is there keeps its mode, and a new one is
    private. A shared spool belongs to the group of its directory. An error leaves nothing behind.
    """
    path = os.path.abspath(where)
    with contextlib.ExitStack() as undo:
        present = _present(path, undo)
        is_new = settings.FILE not in present
        if is_new and present - {*FOLDERS, *ON_DEMAND} - {"lost+found"}:
            raise QueueError(f"{path} is not empty.", "A spool needs a directory of its own.")
        files.give_what_is_made_in(path, files.kernel.stat(path))
        mode = PRIVATE if mode is None and is_new else mode
        if mode is not None and users.HAVE_MODES:
            if is_new:
                undo.callback(_undo, files.kernel.chmod, path, stat.S_IMODE(files.kernel.stat(path).st_mode))
            _set_mode(path, mode)
            if not is_new:
                guarded = safety.guarded_mode(Root(path), settings.readable(path)[0])
                files.kernel.chmod(f"{path}/{settings.FILE}", guarded)
        for name in set(FOLDERS) - present:
            make_folder(f"{path}/{name}", files.kernel.stat(path).st_mode)
            undo.callback(_undo, files.kernel.rmdir, f"{path}/{name}")
        if is_new:
            root = Root(path)
            _refuse_short_names(root)
            undo.callback(_undo, files.kernel.unlink, root.config)
            drafts.replace(
                root.config, settings.template().encode(), safety.guarded_mode(root, settings.DEFAULTS)
            )
            if safety.gives_away(root):
                safety.refuse_given_away(root, files.kernel.stat(root.config).st_uid, settings.DEFAULTS)
        root = safety.open_root(path)
        undo.pop_all()
    return root


def _present(path: str, undo: contextlib.ExitStack) -> set[str]:
    """The names in a directory, which is made where it is missing."""
    try:
        return set(files.list_names(path))
    except NotADirectoryError:
        raise QueueError(f"{path} is not a directory.", "Name another place.") from None
    except FileNotFoundError:
        pass
    try:
        users.make_folder(path, PRIVATE)
    except FileNotFoundError:
        parent = os.path.dirname(path)
        raise QueueError(f"{parent} does not exist.", "Make it, or name another place.") from None
    undo.callback(_undo, files.kernel.rmdir, path)
    return set()


def _undo(call: Callable[..., object], *arguments: object) -> None:
    """Undo a step if that is possible: a directory that somebody has used since stays."""
    with contextlib.suppress(OSError):
        call(*arguments)


def _set_mode(path: str, mode: int) -> None:
    """Open a spool and everything in it to its owner alone, or to its group as well."""
    group = files.kernel.stat(path).st_gid
    files.kernel.chmod(path, mode)
    for name in {*FOLDERS, *ON_DEMAND, settings.FILE} & set(files.list_names(path)):
        users.hand_over(f"{path}/{name}", group, mode)
        for text in files.list_names(f"{path}/{name}") if name != settings.FILE else ():
            users.hand_over(place := f"{path}/{name}/{text}", group, mode)
            for inner in files.list_names(place) if name in ON_DEMAND and files.is_folder(place) else ():
                users.hand_over(f"{place}/{inner}", group, mode)


def _refuse_short_names(root: Root) -> None:
    """Raise `QueueError` if the file system has no room for the names of job files."""
    if not files.takes_name(root.folder(State.PROCESSING), SHORTEST_LIMIT):
        raise QueueError(
            f"{root.text} is on a file system whose names have fewer than {SHORTEST_LIMIT} bytes.",
            "A queue needs longer ones: name a place on another file system.",
        )
