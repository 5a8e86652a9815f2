"""The medium of a spool, a local disk or a share of some kind, and what may be relied on there.

Every difference between media is a question to `Medium`. The facts behind the answers were measured
on ext4, NFSv3, NFSv4.2, SMB 3.1.1, GlusterFS 10 and sshfs 3.7.
"""

from __future__ import annotations

import contextlib
from functools import cached_property

from queuectl import times
from queuectl.system import files, mounts
from queuectl.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

#: File systems that one kernel alone has mounted.
_LOCAL = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "bcachefs", "reiserfs"}
    | {"tmpfs", "ramfs", "overlay", "erofs", "squashfs"}
    | {"vfat", "exfat", "ntfs", "ntfs3", "fuseblk", "apfs", "hfs", "ufs"}
)
_NFS = frozenset({"nfs", "nfs4"})
#: A file is whole once it has not changed for this many seconds and nobody has it open for writing.
SETTLE = 0.2
#: The same where nothing shows who writes to it.
SETTLE_UNWATCHED = 2.0
#: Seconds for which a share may go on listing a name that is gone (sshfs: 20).
_LISTS_GONE = 30.0
#: Seconds for which a directory must have kept its time before the time proves that nothing changed.
GRAIN = 2.0


class Listed(NamedTuple):
    """A directory's mark, since when it is known, and whether an uncached listing since then proves it."""

    mark: files.Mark
    since: float
    is_proven: bool = False


def listed(known: Listed | None, mark: files.Mark, now: float) -> Listed:
    """What is known of a directory after a listing at `now` (monotonic) that found `mark`."""
    if known is None or known.mark != mark:
        return Listed(mark, now)
    return known._replace(is_proven=known.is_proven or now - known.since >= GRAIN)


class Medium:
    """The file system that holds one spool.

    A plain `enqueue` asks only what a block device answers without reading the list of mounts.
    """

    def __init__(self, path: str, facts: os.stat_result) -> None:
        self._path = path
        self.has_device = mounts.on_block_device(facts)
        self._listed: dict[str, Listed] = {}
        self._lists_anew = False

    @cached_property
    def filesystem(self) -> str:
        """The type of the file system, as the system names it: `ext4`, `nfs4`, `cifs`, `fuse.sshfs`."""
        return mounts.filesystem(self._path)

    @cached_property
    def is_shared(self) -> bool:
        """Whether other hosts may have the directory, too. Ask one of the questions below instead."""
        return self.filesystem not in _LOCAL

    @property
    def hears_all(self) -> bool:
        """Whether events and the times of directories show every change.

        A share sends no event for what another host changes.
        """
        return not self.is_shared

    @property
    def is_remote(self) -> bool:
        """Whether each look is a round trip, which may take seconds or hang."""
        return self.is_shared

    @property
    def has_own_clock(self) -> bool:
        """Whether another host's clock dates the files."""
        return self.is_shared

    @property
    def locks_tell(self) -> bool:
        """Whether a file lock shows if its worker lives; else its beats do, and its writes may arrive late.

        Two sshfs mounts both get a lock, NFS depends on mount options, and GlusterFS drops locks that are
        held. A host that is cut off may hold back writes until after others took its files over.
        """
        return not self.is_shared

    @property
    def answers_truly(self) -> bool:
        """Whether a question about one name is answered as things are now.

        A share answers from a cache: a name stays "not there" for up to 28 s on NFS if it was asked for
        too early, and attributes may be old. Only a listing shows what other hosts have made. FUSE gives a
        file a new inode number when it has forgotten the file.
        """
        return not self.is_shared

    @property
    def tells_writers(self) -> bool:
        """Whether a lease may be tried, which shows if anybody has a file open for writing.

        NFS and SMB clients refuse it also where their server grants no delegation or oplock, and then
        every file would seem open for writing.
        """
        return not self.is_shared

    @property
    def settle_time(self) -> float:
        """Seconds for which a file must not have changed to be whole, unless a writer is seen."""
        return SETTLE if self.tells_writers else SETTLE_UNWATCHED

    @property
    def lists_gone_for(self) -> float:
        """Seconds for which a listing may show a name that is gone."""
        return _LISTS_GONE if self.is_shared else 0.0

    @property
    def forgets_names(self) -> bool:
        """Whether a power cut of the server may take names from a directory that was synced.

        The SMB and SFTP clients and GlusterFS do nothing when a directory is synced: each file has to be
        synced under its name. An NFS server has a name on disk before it answers.
        """
        return not self.has_device and self.is_shared and self.filesystem not in _NFS

    @property
    def maps_owners(self) -> bool:
        """Whether a file that one user makes may belong to another."""
        return not self.has_device and self.is_shared

    @property
    def is_nfs(self) -> bool:
        """Whether an NFS server decides to whom files belong."""
        return self.filesystem in _NFS

    @property
    def makes_modes_up(self) -> bool:
        """Whether the mount options may decide about owner and modes of files."""
        return self.filesystem in mounts.PRIVATE_OPTIONS

    @property
    def name_there(self) -> str | None:
        """The server's name for the directory of the spool; None for a local disk, or if unknown."""
        return mounts.name_on_share(self._path) if self.is_shared else None

    def names_in(self, folder: str) -> list[str]:
        """The names in a directory, as its server has them, in no order.

        On NFS the cached listing is dropped first, unless it is proven to be true. A listing of another
        share may be old (sshfs: 20 s), but for one within `listing_anew`.
        """
        if not self.is_nfs or not files.CAN_DROP_LISTINGS:
            if self._lists_anew and self.is_shared:
                files.touch_folder(folder)
            return files.list_names(folder)
        known, now = self._listed.get(folder), times.clock.monotonic()
        names, mark = files.list_marked(folder, known.mark if known and known.is_proven else None)
        self._listed[folder] = listed(known, mark, now)
        return names

    @contextlib.contextmanager
    def listing_anew(self) -> Iterator[None]:
        """Let no listing come from a cache, for whoever deletes what no listing shows.

        Each then costs a file that is made and removed, but on NFS. Of 40 listings on sshfs that were old,
        that made 40 true.
        """
        before, self._lists_anew = self._lists_anew, True
        try:
            yield
        finally:
            self._lists_anew = before

    def being_written(self, path: str) -> bool | None:
        """Whether anybody has a file open for writing; None where nothing shows it."""
        return files.being_written(path) if self.tells_writers else None

    def read_watched(self, path: str, limit: int) -> tuple[bytes, files.Mark, bool | None]:
        """The bytes of a file, its mark, and whether anybody has it open for writing; None: nothing tells.

        Raises as `files.read` does.
        """
        if self.tells_writers:
            return files.read_watched(path, limit)
        return (*files.read_marked(path, limit), None)
