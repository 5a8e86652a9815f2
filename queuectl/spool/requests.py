"""Requests to workers: files in workers/ that they find by listing.

workers/NAME.stop          finish the job at hand and exit; past the time in it, give it back
workers/CLAIM.cancel       end this claim (its name without .yaml, so no other run is meant)
workers/paused             claim nothing
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from queuectl.system import drafts, files
from queuectl.system.host import host_name
from queuectl.times import iso

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from queuectl.spool.names import Name
    from queuectl.spool.root import Root

PAUSED = "paused"


class Requests(NamedTuple):
    """The requests to one worker that a look into workers/ has found."""

    paused: bool = False
    stop: bool = False
    limit: float | None = None
    cancelled: frozenset[str] = frozenset()


def requests_to(root: Root, name: str) -> Requests:
    """The requests to one worker now, found by listing, never by asking for a name."""
    names = root.texts_in(root.workers)
    ending = f"@{name}.cancel"
    stop = f"{name}.stop" in names
    return Requests(
        paused=PAUSED in names,
        stop=stop,
        limit=_limit(f"{root.workers}/{name}.stop") if stop else None,
        cancelled=frozenset(text.removesuffix(".cancel") for text in names if text.endswith(ending)),
    )


def _limit(path: str) -> float | None:
    try:
        return float(files.read(path).decode("ascii").strip())
    except (OSError, ValueError):
        return None


def to_stop(root: Root, names: Iterable[str], limit: float | None) -> None:
    """Ask workers to finish the job at hand and exit; past `limit` seconds to give it back.

    All of them are asked or, where the disk does not take that, none.
    """
    text = b"" if limit is None else f"{limit:g}\n".encode()
    before = set(files.list_names(root.workers))
    prepared: dict[str, str] = {}
    asked: list[str] = []
    try:
        for name in names:
            path = f"{root.workers}/{name}.stop"
            prepared[path] = drafts.prepare(path, text, root.file_mode)
        for path in list(prepared):
            drafts.put(prepared.pop(path), path)
            asked.append(path)
    except BaseException:
        new = [path for path in asked if path.rpartition("/")[2] not in before]
        for path in [*prepared.values(), *new]:
            with contextlib.suppress(OSError):
                files.remove(path)
        raise


def to_cancel(root: Root, claim: Name) -> str:
    """Ask the owner of a running job to stop this run of it; returns the path of the request.

    No name of a claim is ever used twice, so a request that comes too late means no later run.
    """
    path = f"{root.workers}/{str(claim).removesuffix('.yaml')}.cancel"
    with contextlib.suppress(FileExistsError):
        files.create(path, mode=root.file_mode)
    return path


def pause(root: Root, now: datetime) -> None:
    """Let no worker claim anything until `resume`."""
    if not is_paused(root):
        path = f"{root.workers}/{PAUSED}"
        text = f"since {iso(now)} by {host_name()}\n"
        drafts.put(drafts.prepare(path, text.encode(), root.file_mode), path)


def resume(root: Root) -> bool:
    """Let workers claim again; False when nothing was paused."""
    return files.remove(f"{root.workers}/{PAUSED}")


def is_paused(root: Root) -> bool:
    """Whether claims are held back."""
    return PAUSED in root.texts_in(root.workers)
