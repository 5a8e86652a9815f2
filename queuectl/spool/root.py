"""The directory itself: where things are in it, how one is made, and when one is refused."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from functools import cached_property
from typing import TYPE_CHECKING

from queuectl import settings
from queuectl.errors import BadSetting, GivenAway, NotASpool, QueueError, SpoolAway, UnsafeSpool
from queuectl.job.model import State
from queuectl.spool.names import AROUND_ID, SHORTEST_LIMIT
from queuectl.system import drafts, files, mounts, owners, users
from queuectl.system.medium import Medium

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: The modes of a spool that is its owner's, and of one that is its group's, too.
PRIVATE, SHARED = 0o700, 0o2770
LOGS, WORKERS = "logs", "workers"
FOLDERS = (*(str(state) for state in State), LOGS, WORKERS)
#: Made when the first id is chosen.
IDS = "ids"


class Root:
    """The absolute path of a spool and the folders in it, as text: paths are joined a million times.

    `text` is the path itself, `path` the same for pathlib, whose import takes as long as filing a job.
    `logs` holds the outputs of jobs and the workers' own logs, `workers` the locks and descriptions
    of live workers and what is asked of them. `config` has the settings, and is the mark by which a
    spool is known.
    """

    def __init__(self, path: Path | str) -> None:
        self.text = os.path.abspath(path)
        self._folders = {state: f"{self.text}/{state.value}" for state in State}
        self.logs = f"{self.text}/{LOGS}"
        self.workers = f"{self.text}/{WORKERS}"
        self.ids = f"{self.text}/{IDS}"
        self._tried: dict[int, bool] = {}

    @cached_property
    def path(self) -> Path:
        """The directory."""
        from pathlib import Path

        return Path(self.text)

    @property
    def config(self) -> Path:
        """The file that `settings` reads."""
        return self.path / settings.FILE

    def folder(self, state: State) -> str:
        """The directory of a state."""
        return self._folders[state]

    @cached_property
    def medium(self) -> Medium:
        """The file system that holds the spool."""
        return Medium(self.text, self._facts)

    def texts_in(self, folder: str) -> list[str]:
        """The names in one of the directories of the spool, as its server has them, in no order."""
        return self.medium.names_in(folder)

    @property
    def gives_away(self) -> bool:
        """Whether this is root, and files that root makes may come to belong to another user."""
        return users.is_root() and self.medium.maps_owners

    @cached_property
    def _facts(self) -> os.stat_result:
        facts: os.stat_result = files.kernel.stat(self.text)
        return facts

    @cached_property
    def identity(self) -> str:
        """What tells this spool from every other one on this host, from a copy of it, too.

        All paths that lead to it give the same: links, bind mounts. On a local disk it is the device
        and the inode of the directory. A share has another device number after each mount, and sshfs
        another inode whenever it has forgotten the last: there it is the name of the directory on the
        share, by which its workers go, too.
        """
        share = self.medium.name_there
        if share is None:
            return f"{self._facts.st_dev:x}#{self._facts.st_ino}"
        return share.encode("ascii", "backslashreplace").decode()

    @cached_property
    def file_mode(self) -> int:
        """The mode of new files: what the directory lets its group do with it holds for them, too."""
        return 0o660 if _is_for_group(self._facts.st_mode) else files.PRIVATE

    def takes_id(self, job_id: str) -> bool:
        """Whether every file name that a job of this id comes to have fits on this file system.

        A length that may not fit is tried once, as some systems tell a limit that does not hold.
        """
        length = len(job_id) + AROUND_ID
        if length > SHORTEST_LIMIT and length not in self._tried:
            self._tried[length] = files.takes_name(self.folder(State.PROCESSING), length)
        return self._tried.get(length, True)

    @property
    def group(self) -> str:
        """The name of the group that the directory has, or its number."""
        return users.group_name(files.kernel.stat(self.text).st_gid)

    def guarded_mode(self, values: settings.Settings) -> int:
        """The mode of files that decide what is run: where root runs it, none but its owner writes to it."""
        guarded = users.is_root() or values.trusted_users != settings.NOBODY
        return self.file_mode & ~0o020 if guarded else self.file_mode

    def trust(self, values: settings.Settings) -> users.Trust | None:
        """Whose files a worker runs; None for anybody's who may write to the spool, unless it is root."""
        if not users.is_root():
            return None
        return users.Trust(settings.trusted_ids(values.trusted_users), self.file_mode == files.PRIVATE)

    def refuse_trust(self) -> None:
        """Raise `BadSetting` where root would name trusted users in a file that another user may change."""
        owner = files.kernel.stat(self.config).st_uid
        if users.is_root() and owner != 0:
            raise BadSetting(
                f"trusted_users counts where {settings.FILE} is root's; it is {users.user_name(owner)}'s.",
                f"Run `chown root {self.config}` and `chmod 644 {self.config}` first.",
            )

    def refuse_given_away(self, owner: int, values: settings.Settings) -> None:
        """Raise `GivenAway` where root has just made a file that came to belong to this owner.

        The owner of the spool may have it: that user's workers run it. Nobody's workers run what
        belongs to the user to whom an NFS server gives the files of a root that it does not trust.
        """
        trust = self.trust(values)
        if trust is None or owner in trust.owners or (owner == self._facts.st_uid and owner != _OVERFLOW):
            return
        mends = "Do it"
        if self.medium.is_nfs:
            mends = "Export it with `no_root_squash`, or do it"
        elif self.medium.makes_modes_up:
            mends = "Mount it with `-o uid=root`, or do it"
        user = users.user_name(owner)
        raise GivenAway(
            self.text, user, f"{mends} as the user whose workers are to run it, with `sudo -u USER`."
        )

    def refuse_idle_root(self) -> None:
        """Raise `QueueError` where a worker of root would run nothing: another user's spool, without trust.

        What root files there belongs to that user, too.
        """
        owner = files.kernel.stat(self.text).st_uid
        if self.gives_away:
            self.refuse_given_away(owner, settings.load(self.text))
        if users.is_root() and owner != 0 and settings.load(self.text).trusted_users == settings.NOBODY:
            raise QueueError(
                f"{self.text} belongs to {users.user_name(owner)}, whose jobs a worker of root does not run.",
                f"Start it as that user, `sudo -u '#{owner}' queuectl -s {self.text} worker start`, "
                + (
                    "or mount it with `-o uid=root`."
                    if self.medium.makes_modes_up
                    else "or set trusted_users."
                ),
            )

    def require(self) -> None:
        """Raise `NotASpool` unless config.yaml is there: an unmounted share is an empty directory."""
        try:
            present = settings.FILE in files.list_names(self.text)
        except (FileNotFoundError, NotADirectoryError):
            present = False
        if not present:
            raise NotASpool(self.text)

    def require_reachable(self) -> None:
        """Raise `SpoolAway` unless config.yaml is there: then a missing file is missing indeed."""
        try:
            self.require()
        except NotASpool as error:
            raise SpoolAway(self.text) from error


def open_root(path: Path | str) -> Root:
    """The spool at `path`; raises `NotASpool` or `UnsafeSpool`. Missing folders are made anew."""
    root = Root(path)
    root.require()
    facts = files.kernel.stat(root.text)
    refuse_unsafe(root, facts)
    files.give_what_is_made_in(root.text, facts)
    mend(root)
    return root


def mend(root: Root) -> None:
    """Make the folders anew that are missing. The root must have its config.yaml."""
    for name in set(FOLDERS) - set(files.list_names(root.text)):
        make_folder(f"{root.text}/{name}", files.kernel.stat(root.text).st_mode)


def create(where: Path | str, mode: int | None = None) -> Root:
    """Make a spool at `where`, which may be an empty directory; raises `QueueError` for others.

    `mode` is `PRIVATE` or `SHARED`; without one a spool that is there keeps its own, and a new one
    is private. A shared one belongs to the group that its directory has. What is refused, or fails,
    leaves nothing behind.
    """
    path = os.path.abspath(where)
    with contextlib.ExitStack() as undo:
        present = _present(path, undo)
        is_new = settings.FILE not in present
        if is_new and present - {*FOLDERS, IDS} - {"lost+found"}:
            raise QueueError(f"{path} is not empty.", "A spool wants a directory of its own.")
        files.give_what_is_made_in(path, files.kernel.stat(path))
        mode = PRIVATE if mode is None and is_new else mode
        if mode is not None and os.name == "posix":
            if is_new:
                undo.callback(_undo, files.kernel.chmod, path, stat.S_IMODE(files.kernel.stat(path).st_mode))
            _set_mode(path, mode)
            if not is_new:
                _guard_config(Root(path))
        for name in set(FOLDERS) - present:
            make_folder(f"{path}/{name}", files.kernel.stat(path).st_mode)
            undo.callback(_undo, files.kernel.rmdir, f"{path}/{name}")
        if is_new:
            root = Root(path)
            refuse_short_names(root)
            undo.callback(_undo, files.kernel.unlink, root.config)
            drafts.replace(root.config, settings.template().encode(), root.guarded_mode(settings.DEFAULTS))
            if root.gives_away:
                root.refuse_given_away(files.kernel.stat(root.config).st_uid, settings.DEFAULTS)
        root = open_root(path)
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
        owners.make_folder(path, PRIVATE)
    except FileNotFoundError:
        parent = os.path.dirname(path)
        raise QueueError(f"{parent} does not exist.", "Make it, or name another place.") from None
    undo.callback(_undo, files.kernel.rmdir, path)
    return set()


def _undo(call: Callable[..., object], *arguments: object) -> None:
    """Undo a step as far as that can be done: what somebody has used since stays."""
    with contextlib.suppress(OSError):
        call(*arguments)


def _guard_config(root: Root) -> None:
    """Let none but its owner write to a config.yaml that says whose jobs root runs."""
    try:
        values = settings.load(root.text)
    except BadSetting:
        values = settings.DEFAULTS
    files.kernel.chmod(root.config, root.guarded_mode(values))


def _set_mode(path: str, mode: int) -> None:
    """Give a spool, and whatever is in it, to its owner alone or to its group, too."""
    group = files.kernel.stat(path).st_gid
    files.kernel.chmod(path, mode)
    for name in {*FOLDERS, IDS, settings.FILE} & set(files.list_names(path)):
        owners.hand_over(f"{path}/{name}", group, mode)
    for name in {*FOLDERS, IDS} & set(files.list_names(path)):
        for text in files.list_names(f"{path}/{name}"):
            owners.hand_over(f"{path}/{name}/{text}", group, mode)


def make_folder(path: str, mode: int) -> None:
    """Make a directory with this mode where there is none."""
    with contextlib.suppress(FileExistsError):
        owners.make_folder(path)
    if os.name == "posix":
        files.kernel.chmod(path, stat.S_IMODE(mode))


def refuse_short_names(root: Root) -> None:
    """Raise `QueueError` where the file system has no room for the names of a queue."""
    if not files.takes_name(root.folder(State.PROCESSING), SHORTEST_LIMIT):
        raise QueueError(
            f"{root.text} is on a file system whose names have fewer than {SHORTEST_LIMIT} bytes.",
            "A queue needs longer ones: name a place on another file system.",
        )


def refuse_unsafe(root: Root, spool: os.stat_result) -> None:
    """Raise `UnsafeSpool` where somebody else could put a command that a worker would run.

    Nobody but the spool's owner, root, who asks, and the group of a shared spool may write to the
    directory and what is in it, or put another one in its place.
    """
    if sys.platform == "win32":
        return
    known = {0, os.geteuid(), spool.st_uid}
    shared = _is_for_group(spool.st_mode)
    _refuse_part(root.text, spool, known, shared=shared)
    for name in (*FOLDERS, IDS, settings.FILE):
        place = f"{root.text}/{name}"
        with contextlib.suppress(FileNotFoundError):
            _refuse_part(place, files.kernel.lstat(place), known, shared=shared)
    alone = False
    for place, facts in _way_to(root.text):
        if place == "/":
            alone = False  # the way begins anew where a link leads
        if not alone:
            _refuse_on_the_way(place, facts, known, spool.st_gid if shared else None)
        alone |= not stat.S_ISLNK(facts.st_mode) and _is_closed(facts)


def _refuse_part(place: str, facts: os.stat_result, known: set[int], *, shared: bool) -> None:
    """Refuse a spool of which this part is open to others than those who share it."""
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
    if facts.st_uid not in {*known, _OVERFLOW}:
        owner = users.user_name(facts.st_uid)
        raise _unsafe(place, f"belongs to {owner}, {swap}", "chown -h root")
    if stat.S_ISLNK(facts.st_mode) or facts.st_mode & stat.S_ISVTX:
        return
    if facts.st_mode & stat.S_IWOTH:
        raise _unsafe(place, f"may be written to by anybody, {swap}", "chmod o-w")
    if facts.st_mode & stat.S_IWGRP and facts.st_gid != group and not users.is_private_group(facts):
        raise _unsafe(place, f"may be written to by its group, {swap}", "chmod g-w")


def _unsafe(place: str, problem: str, command: str) -> UnsafeSpool:
    """The refusal, with the command that mends the place or, where none can, the mount options."""
    import shlex

    options = None if command == "rm" else _owning_options(place)
    if options is None:
        return UnsafeSpool(place, problem, f"Run `{command} {shlex.quote(place)}`.")
    kind, names = options
    return UnsafeSpool(
        place,
        problem,
        f"Owner and modes are the mount's ({kind}), no command changes them: mount it with `-o {names}`.",
    )


def _owning_options(place: str) -> tuple[str, str] | None:
    """The type of a mount that makes owner and modes up, and the options that make them private to us."""
    mount = mounts.mount_of(place)
    if mount is None or not mount.makes_modes_up:
        return None
    whose = f"uid={users.user_name(os.geteuid())},gid={users.group_name(os.getegid())}"
    return mount.kind, f"{whose},{mounts.PRIVATE_OPTIONS[mount.kind]}"


#: The owner of files whose true owner this system does not know: root, seen from a container or over NFS.
_OVERFLOW = 65534


def _way_to(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Each directory and link that the system goes through to get to a path, in its order."""
    here, left = "/", _steps(path)
    for _ in range(1000):
        yield here, files.kernel.lstat(here)
        if not left:
            return
        step = os.path.join(here, left.pop())
        facts = files.kernel.lstat(step)
        if not stat.S_ISLNK(facts.st_mode):
            if not left:
                return
            here = step
            continue
        yield step, facts
        target = files.kernel.readlink(step)
        here = "/" if target.startswith("/") else here
        left.extend(_steps(target))


def _steps(path: str) -> list[str]:
    """The names in a path, the first one last."""
    return [name for name in reversed(path.split("/")) if name not in {"", "."}]


def _is_closed(facts: os.stat_result) -> bool:
    """Whether nobody but the owner gets through this directory."""
    if facts.st_mode & stat.S_IXOTH:
        return False
    return not facts.st_mode & stat.S_IXGRP or users.is_private_group(facts)


def _is_for_group(mode: int) -> bool:
    return bool(mode & stat.S_ISGID and mode & stat.S_IWGRP)
