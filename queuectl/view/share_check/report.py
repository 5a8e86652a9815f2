"""What the figures mean, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from queuectl.spool import presence
from queuectl.system import mounts
from queuectl.system.medium import SETTLE_UNWATCHED
from queuectl.view.share_check.trial import FILES, NEVER, PAIRS, Alone, Together

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any

#: A name that takes longer than this many seconds to be seen slows the queue down.
SLOW = 3.0
#: The remedy, by type of mount, if names or contents are seen late. Owner and modes on SMB need more options.
FRESHER = {
    "nfs": "lookupcache=positive,actimeo=1",
    "cifs": "cache=none,actimeo=1,nobrl,nolease",
    "fuse.sshfs": "dir_cache=no",
    "fuse.glusterfs": "entry-timeout=1,attribute-timeout=1,negative-timeout=0",
}
FRESHER |= {"nfs4": FRESHER["nfs"], "smb3": FRESHER["cifs"]}


class Report(NamedTuple):
    """The figures and what they mean. `verdict` is `safe`, `unsafe` or `unknown`."""

    alone: Alone
    together: Together | None
    verdict: str
    remarks: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The object that `check --share --json` prints."""
        both = None if self.together is None else self.together._asdict()
        return {"verdict": self.verdict, **self.alone._asdict(), "together": both, "remarks": self.remarks}


def judged(folder: Path, alone: Alone, together: Together | None, silent: Sequence[str] = ()) -> Report:
    """The verdict and remarks on these figures; `silent` are runs that did not answer this one."""
    remarks = [*_on_mount(folder, alone), *_on_clock(alone.host, alone.clock_offset)]
    if together is None:
        remarks.append("No other host came: whether claims are exclusive here was not tried.")
        if silent:
            remarks.append(
                f"{', '.join(silent)} did not answer: they try it out with each other, or were killed."
            )
        return Report(alone, None, "unknown", remarks)
    wrong = list(_wrong(together))
    if together.same_mount:
        remarks.append("Both runs are on one mount of one host: run the other one on another host.")
    remarks += _on_clock(together.other_host, together.other_clock_offset)
    remarks += _on_caches(alone.filesystem, together)
    verdict = "unsafe" if wrong else "unknown" if together.same_mount else "safe"
    return Report(alone, together, verdict, wrong + remarks)


def _wrong(together: Together) -> Iterator[str]:
    """Why the mount must not be used."""
    if together.claimed_twice or together.claims_lost:
        yield (
            f"Of {FILES} files that both renamed, {together.claimed_twice} were won by both and "
            f"{together.claims_lost} by none: a job would run twice or never. Do not use this mount."
        )
    if together.created_twice:
        yield (
            f"Of {FILES} files that both made exclusively, {together.created_twice} were made by both: "
            "an id could be taken twice. Do not use this mount."
        )
    if together.stale_listings:
        yield (
            f"In {together.stale_listings} of {PAIRS} tries a new file stayed hidden from listings past the "
            "cache, too: an idle worker may not see a job. Do not use this mount."
        )


def _on_mount(folder: Path, alone: Alone) -> Iterator[str]:
    options = mounts.mount_options(str(folder))
    if alone.filesystem.startswith("nfs") and options & {"soft", "softerr"}:
        yield "It is mounted `soft`: what is written may get lost unnoticed; mount it with `-o hard`."
    if alone.filesystem in {"cifs", "smb3"} and "nolease" not in options:
        yield (
            "A host that vanishes with files open for writing holds up others that rename them, for a minute "
            "or more: mount it with `-o nolease`."
        )
    if alone.lease is False:
        yield (
            "A lease is refused though nobody has the file open. The queue asks for none on a share: there a "
            f"file is whole once it has stood still for {SETTLE_UNWATCHED:g} s."
        )
    if not alone.syncs_folders:
        yield (
            "Syncing a directory does nothing here: a power cut of the server may undo a rename. The queue "
            "syncs each job's file under its name; your own scripts should, too."
        )
    if alone.owner is not None:
        yield (
            f"What is made here belongs to {alone.owner}, and not to the user who makes it: a worker of root "
            "runs no such job. Export it with `no_root_squash` (NFS) or mount it with `-o uid=USER` (SMB)."
        )
    if not alone.is_private:
        yield (
            "Other users may open what is made here, and a chmod has no effect: mount it so that files are "
            "private, on SMB with `-o uid=USER,gid=GROUP,file_mode=0600,dir_mode=0700`."
        )


def _on_clock(host: str, offset: float) -> list[str]:
    return [presence.clock_warning(offset, host)] if abs(offset) > presence.TOLERANCE else []


def _on_caches(kind: str, together: Together) -> Iterator[str]:
    if together.seen_after > SLOW:
        options = FRESHER.get(kind)
        remedy = f"mount it with `-o {options}`" if options else "look for the mount options of its caches"
        yield f"A new name is seen after {together.seen_after:.1f} s: to start jobs sooner, {remedy}."
    late = NEVER if together.change_seen_after is None else together.change_seen_after
    slowest = max(late, together.seen_after)
    if slowest > SLOW:
        yield f"Set `lock_lease_seconds` to no less than {4 * slowest:.0f}: signs of life are seen late here."
