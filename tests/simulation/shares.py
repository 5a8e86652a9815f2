"""How shares differ from a local disk: one switch a behaviour, each with what it was measured on.

Figures without another source are those of SPOOL.md. Nothing is assumed to be kinder than measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Share:
    """The behaviours of one file system. Times are seconds. The defaults are those of a local disk."""

    #: A name that was asked for before it existed stays "not there" (NFS: 13 to 28 s).
    negative_entries: float = 0.0
    #: A listing may be this old (NFS and SMB: 90 ms; sshfs: 20 s).
    stale_listing: float = 0.0
    #: Attributes of a name may be this old, those of a name that has gone included (NFS: 3 s and more).
    stale_attributes: float = 0.0
    #: A listing that was made within the tick of a change stays old until the directory changes
    #: again or its pages are dropped (NFSv3, server with 10 ms timestamps).
    sticky_listing: bool = False
    #: The share of renames that happen and report ENOENT (NFS, SMB, FUSE: a lost reply is sent again).
    lost_replies: float = 0.0
    #: The share of renames that report EIO whether they happened or not.
    unknown_ends: float = 0.0
    #: Renames of one source to one target by several hosts all report success (of 500 files SMB had 1,012
    #: winners, GlusterFS 736).
    many_winners: bool = False
    #: The share of exclusive creations that report EEXIST though nobody has made the file (GlusterFS:
    #: up to 5 of 2,000 where another host looks for the name just then).
    false_exists: float = 0.0
    #: A file that must be new and is there is reported as EPERM (sshfs: SFTP has one word for all failures).
    says_eperm: bool = False
    #: What a host wrote while it was cut off arrives once it is healed (all).
    late_writes: bool = False
    #: The mtime of a file that this host has just written is the one before (SMB).
    old_mtime: bool = False
    #: fsync of a directory does nothing, fsync of a file makes its name safe too (SMB, sshfs, GlusterFS).
    no_folder_sync: bool = False
    #: The server has a change of names on its disk before it answers (NFS).
    names_are_safe: bool = False
    #: Closing a file puts its content on the server's disk. What is not closed is sent again after the server
    #: was away, and is lost with its client (Linux NFS client: it commits at close).
    close_syncs: bool = False
    #: The type of the file system in the system's words.
    kind: str = "ext4"
    #: The grain of the server's timestamps in seconds (SFTP: 1).
    tick: float = 1e-9


LOCAL = Share()
#: What all shares have in common.
_REMOTE = Share(lost_replies=0.02, unknown_ends=0.01, late_writes=True)
NFS = replace(
    _REMOTE,
    kind="nfs4",
    names_are_safe=True,
    close_syncs=True,
    negative_entries=28.0,
    stale_listing=0.09,
    stale_attributes=3.0,
)
NFS3 = replace(NFS, kind="nfs", tick=0.01, sticky_listing=True)
SMB = replace(
    _REMOTE,
    kind="cifs",
    stale_listing=0.09,
    stale_attributes=1.0,
    many_winners=True,
    old_mtime=True,
    no_folder_sync=True,
)
GLUSTER = replace(
    _REMOTE,
    kind="fuse.glusterfs",
    stale_listing=0.09,
    stale_attributes=1.0,
    many_winners=True,
    false_exists=0.003,
    no_folder_sync=True,
)
SSHFS = replace(
    _REMOTE,
    kind="fuse.sshfs",
    tick=1.0,
    stale_listing=20.0,
    stale_attributes=20.0,
    says_eperm=True,
    no_folder_sync=True,
)
#: Every behaviour that the four NFS, SMB, GlusterFS and sshfs have, on one share.
EVERYTHING = replace(
    NFS3,
    negative_entries=28.0,
    stale_listing=20.0,
    lost_replies=0.05,
    unknown_ends=0.03,
    many_winners=True,
    false_exists=0.003,
    old_mtime=True,
)
PROFILES = {
    "local": LOCAL,
    "nfs": NFS,
    "nfs3": NFS3,
    "smb": SMB,
    "gluster": GLUSTER,
    "sshfs": SSHFS,
    "everything": EVERYTHING,
}
