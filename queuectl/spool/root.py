"""The directory of a spool: the paths in it and the medium that holds it."""

from __future__ import annotations

import contextlib
import os
import stat
from functools import cached_property

from queuectl import settings
from queuectl.errors import NotASpool, SpoolAway
from queuectl.job.model import State
from queuectl.spool.names import AROUND_ID, SHORTEST_LIMIT
from queuectl.system import files, users
from queuectl.system.medium import Medium

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

LOGS, WORKERS = "logs", "workers"
FOLDERS = (*(str(state) for state in State), LOGS, WORKERS)
#: Made when the first id is chosen, the first unique key is, and the first job of a group is run.
IDS, KEYS, GROUPS = "ids", "keys", "groups"
#: The directories that are made on first use.
ON_DEMAND = (IDS, KEYS, GROUPS)


class Root:
    """The absolute path of a spool and of its folders, as text.

    `text` is the path itself, `path` the same for pathlib, whose import takes as long as filing a job.
    `logs` holds the output of jobs and the workers' own logs. `workers` holds locks and descriptions
    of live workers, and requests to them. `config` has the settings; a directory with this file is a
    spool.
    """

    def __init__(self, path: Path | str) -> None:
        self.text = os.path.abspath(path)
        self._folders = {state: f"{self.text}/{state.value}" for state in State}
        self.logs = f"{self.text}/{LOGS}"
        self.workers = f"{self.text}/{WORKERS}"
        self.ids = f"{self.text}/{IDS}"
        self.keys = f"{self.text}/{KEYS}"
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
        return Medium(self.text, self.facts)

    def texts_in(self, folder: str) -> list[str]:
        """The names in one of the directories of the spool, as its server has them, in no order."""
        return self.medium.names_in(folder)

    @cached_property
    def facts(self) -> os.stat_result:
        """The attributes of the directory when it was first looked at."""
        facts: os.stat_result = files.kernel.stat(self.text)
        return facts

    @cached_property
    def identity(self) -> str:
        """A text that no other spool on this host has, not even a copy of this one.

        All paths to the spool give the same text, also through links and bind mounts. On a local disk
        it is the device and the inode of the directory. A share has another device number after each
        mount, and sshfs another inode after it has forgotten the last one, so there the text is the
        server's name for the directory.
        """
        share = self.medium.name_there
        if share is None:
            return f"{self.facts.st_dev:x}#{self.facts.st_ino}"
        return share.encode("ascii", "backslashreplace").decode()

    @cached_property
    def file_mode(self) -> int:
        """The mode of new files: open to the group if the directory is."""
        return 0o660 if is_for_group(self.facts.st_mode) else files.PRIVATE

    def takes_id(self, job_id: str) -> bool:
        """Whether the file system takes every file name that a job with this id may get."""
        return self.takes_length(len(job_id) + AROUND_ID)

    def takes_length(self, length: int) -> bool:
        """Whether the file system takes file names of so many bytes.

        A length that may be too long is tried once, because some systems report a wrong limit.
        """
        if length > SHORTEST_LIMIT and length not in self._tried:
            self._tried[length] = files.takes_name(self.folder(State.PROCESSING), length)
        return self._tried.get(length, True)

    @property
    def group(self) -> str:
        """The name of the directory's group; its number if there is none."""
        return users.group_name(files.kernel.stat(self.text).st_gid)

    def require(self) -> None:
        """Raise `NotASpool` unless config.yaml is there: an unmounted share is an empty directory."""
        try:
            present = settings.FILE in files.list_names(self.text)
        except (FileNotFoundError, NotADirectoryError):
            present = False
        if not present:
            raise NotASpool(self.text)

    def require_reachable(self) -> None:
        """Raise `SpoolAway` unless config.yaml is there: only then a missing file proves anything."""
        try:
            self.require()
        except NotASpool as error:
            raise SpoolAway(self.text) from error


def mend(root: Root) -> None:
    """Make the folders that are missing. The root must have its config.yaml."""
    for name in set(FOLDERS) - set(files.list_names(root.text)):
        make_folder(f"{root.text}/{name}", files.kernel.stat(root.text).st_mode)


def make_folder(path: str, mode: int) -> None:
    """Make a directory with this mode where there is none."""
    with contextlib.suppress(FileExistsError):
        users.make_folder(path)
    if users.HAVE_MODES:
        files.kernel.chmod(path, stat.S_IMODE(mode))


def is_for_group(mode: int) -> bool:
    """Whether a directory of this mode is shared with its group."""
    return bool(mode & stat.S_ISGID and mode & stat.S_IWGRP)
