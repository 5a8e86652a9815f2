"""Refuses spools that others could change, and decides whose files a worker of root runs."""

from __future__ import annotations

import contextlib
import os
import stat

from queuectl import settings
from queuectl.errors import BadSetting, QueueError, UnsafeSpool
from queuectl.spool.root import FOLDERS, ON_DEMAND, Root, is_for_group, mend
from queuectl.system import files, mounts, users

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def open_root(path: Path | str) -> Root:
    """The spool at `path`; raises `NotASpool` or `UnsafeSpool`. Missing folders are made again."""
    root = Root(path)
    root.require()
    facts = files.kernel.stat(root.text)
    refuse_unsafe(root, facts)
    files.give_what_is_made_in(root.text, facts)
    mend(root)
    return root


def gives_away(root: Root) -> bool:
    """Whether this is root, and files that root makes may come to belong to another user."""
    return users.is_root() and root.medium.maps_owners


def guarded_mode(root: Root, values: settings.Settings) -> int:
    """The mode of files that decide what root runs: only their owner may write to them."""
    guarded = users.is_root() or values.trusted_users != settings.NOBODY
    return root.file_mode & ~0o020 if guarded else root.file_mode


def trust(root: Root, values: settings.Settings) -> users.Trust | None:
    """Whose files a worker runs. None means everybody who may write to the spool; never for root."""
    if not users.is_root():
        return None
    return users.Trust(settings.trusted_ids(values.trusted_users), root.file_mode == files.PRIVATE)


def refuse_trust(root: Root) -> None:
    """Raise `BadSetting` if root is about to name trusted users in a file that another user may change."""
    owner = files.kernel.stat(root.config).st_uid
    if users.is_root() and owner != 0:
        raise BadSetting(
            f"trusted_users counts where {settings.FILE} is root's; it is {users.user_name(owner)}'s.",
            f"Run `chown root {root.config}` and `chmod 644 {root.config}` first.",
        )


def refuse_given_away(root: Root, owner: int, values: settings.Settings) -> None:
    """Raise `QueueError` if root has made a file that belongs to this owner, whose jobs no worker runs.

    The owner of the spool may have it, because that user's workers run it. Nobody's workers run the
    files that an NFS server gives to the user in whose name it serves root.
    """
    whose = trust(root, values)
    if whose is None or owner in whose.owners or (owner == root.facts.st_uid and owner != users.UNKNOWN):
        return
    mends = "Do it"
    if root.medium.is_nfs:
        mends = "Export it with `no_root_squash`, or do it"
    elif root.medium.makes_modes_up:
        mends = "Mount it with `-o uid=root`, or do it"
    user = users.user_name(owner)
    raise QueueError(
        f"What root files in {root.text} belongs to {user} there, and no worker of root runs it.",
        f"{mends} as the user whose workers are to run it, with `sudo -u USER`.",
    )


def refuse_idle_root(root: Root) -> None:
    """Raise `QueueError` if a worker of root would run nothing, in the spool of a user it does not trust.

    The jobs that root files there belong to that user, too.
    """
    owner = files.kernel.stat(root.text).st_uid
    if gives_away(root):
        refuse_given_away(root, owner, settings.load(root.text))
    if users.is_root() and owner != 0 and settings.load(root.text).trusted_users == settings.NOBODY:
        raise QueueError(
            f"{root.text} belongs to {users.user_name(owner)}, whose jobs a worker of root does not run.",
            f"Start it as that user, `sudo -u '#{owner}' queuectl -s {root.text} worker start`, "
            + ("or mount it with `-o uid=root`." if root.medium.makes_modes_up else "or set trusted_users."),
        )


def refuse_unsafe(root: Root, spool: os.stat_result) -> None:
    """Raise `UnsafeSpool` if somebody else could add a command that a worker would run.

    Only the spool's owner, root, the present user and the group of a shared spool may write to the
    directory and its content, or put another directory in its place.
    """
    if not users.HAVE_MODES:
        return
    known = {0, os.geteuid(), spool.st_uid}
    shared = is_for_group(spool.st_mode)
    _refuse_part(root.text, spool, known, shared=shared)
    for name in (*FOLDERS, *ON_DEMAND, settings.FILE):
        place = f"{root.text}/{name}"
        with contextlib.suppress(FileNotFoundError):
            _refuse_part(place, files.kernel.lstat(place), known, shared=shared)
    alone = False
    for place, facts in _way_to(root.text):
        if place == "/":
            alone = False  # an absolute link starts again at the top
        if not alone:
            _refuse_on_the_way(place, facts, known, spool.st_gid if shared else None)
        alone |= not stat.S_ISLNK(facts.st_mode) and _is_closed(facts)


def _refuse_part(place: str, facts: os.stat_result, known: set[int], *, shared: bool) -> None:
    """Refuse a spool if others than those who share it may write to this part."""
    if stat.S_ISLNK(facts.st_mode):
        raise _unsafe(place, "is a link, which could lead elsewhere tomorrow", "rm")
    if facts.st_mode & stat.S_IWOTH:
        raise _unsafe(place, "may be written to by anybody", "chmod o-w")
    if facts.st_mode & stat.S_IWGRP and not shared and not users.is_private_group(facts):
        raise _unsafe(place, "may be written to by its group", "chmod g-w")
    if facts.st_uid not in known and not shared:
        raise _unsafe(place, f"belongs to {users.user_name(facts.st_uid)}", "chown -h root")


def _refuse_on_the_way(place: str, facts: os.stat_result, known: set[int], group: int | None) -> None:
    """Refuse a directory above the spool, or a link on the way to it, that others could change."""
    swap = "who could put another spool in its place"
    if facts.st_uid not in {*known, users.UNKNOWN}:
        owner = users.user_name(facts.st_uid)
        raise _unsafe(place, f"belongs to {owner}, {swap}", "chown -h root")
    if stat.S_ISLNK(facts.st_mode) or facts.st_mode & stat.S_ISVTX:
        return
    if facts.st_mode & stat.S_IWOTH:
        raise _unsafe(place, f"may be written to by anybody, {swap}", "chmod o-w")
    if facts.st_mode & stat.S_IWGRP and facts.st_gid != group and not users.is_private_group(facts):
        raise _unsafe(place, f"may be written to by its group, {swap}", "chmod g-w")


def _unsafe(place: str, problem: str, command: str) -> UnsafeSpool:
    """The refusal with the command that mends the place or, if no command can, the mount options."""
    import shlex

    remedy = f"Run `{command} {shlex.quote(place)}`."
    mount = None if command == "rm" else mounts.mount_of(place)
    if mount is not None and mount.makes_modes_up:
        whose = f"uid={users.user_name(os.geteuid())},gid={users.group_name(os.getegid())}"
        remedy = (
            f"Owner and modes are the mount's ({mount.kind}), no command changes them: "
            f"mount it with `-o {whose},{mounts.PRIVATE_OPTIONS[mount.kind]}`."
        )
    return UnsafeSpool(f"{place} {problem}.", remedy)


def _way_to(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Each directory and link that the system passes on the way to a path, in order, without its end."""
    here, left = "/", _steps(path)
    yield here, files.kernel.lstat(here)
    for _ in range(1000):  # a link that leads to itself has no end
        if not left:
            return
        step = os.path.join(here, left.pop())
        facts = files.kernel.lstat(step)
        if not stat.S_ISLNK(facts.st_mode):
            here = step
            if left:
                yield step, facts
            continue
        yield step, facts
        target = files.kernel.readlink(step)
        left.extend(_steps(target))
        if target.startswith("/"):
            here = "/"
            yield here, files.kernel.lstat(here)


def _steps(path: str) -> list[str]:
    """The names in a path, the first one last."""
    return [name for name in reversed(path.split("/")) if name not in {"", "."}]


def _is_closed(facts: os.stat_result) -> bool:
    """Whether only the owner can pass through this directory."""
    if facts.st_mode & stat.S_IXOTH:
        return False
    return not facts.st_mode & stat.S_IXGRP or users.is_private_group(facts)
