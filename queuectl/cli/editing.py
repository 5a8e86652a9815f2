"""`edit`: a waiting job in a person's editor, parked meanwhile under a name that says so."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from queuectl import documents
from queuectl.cli import completion, printer
from queuectl.cli.commands import on_spool
from queuectl.errors import BadJob, JobMoved, NoSuchJob, QueueError
from queuectl.spool import acts, changes, jobfile, jobs, parking
from queuectl.system import files, users
from queuectl.view import lookup

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from queuectl.api import Spool
    from queuectl.spool.jobs import Found


@on_spool("edit", "queuectl edit resize-42", "EDITOR='code --wait' queuectl edit resize-42")
@click.argument("job_id", shell_complete=completion.ids_in(*jobs.WAITING))
def edit_command(spool: Spool, job_id: str) -> int:
    """Change a waiting job in $VISUAL or $EDITOR. It does not start meanwhile."""
    editor = _editor()
    spool.refuse_older_workers()
    found, reason = _taken(spool, job_id)
    is_put_back = False
    try:
        head, _ = changes.split(documents.text_of(files.read(found.path, files.MAX_WITH_HISTORY)))
        with _private_copy(found.id, head) as copy:
            is_put_back = _edit(spool, found, reason, editor, copy, head)
            if is_put_back:
                printer.line(f"{found.id} is changed")
    finally:
        if not is_put_back:
            _give_back(spool, found, reason)
    return 0


def _editor() -> list[str]:
    """The words of the person's editor. Raises `QueueError` where there is none."""
    name = next((name for name in ("VISUAL", "EDITOR") if os.environ.get(name, "").strip()), None)
    if name is None:
        raise QueueError("No editor is set.", "Set one: `EDITOR=nano queuectl edit …`.")
    try:
        words = shlex.split(os.environ[name])
    except ValueError as error:
        raise QueueError(f"${name} cannot be read: {error}.", "Write it as for a shell.") from None
    if shutil.which(words[0]) is None:
        raise QueueError(f"There is no program {words[0]!r}, which ${name} names.", f"Correct ${name}.")
    return words


def _taken(spool: Spool, word: str) -> tuple[Found, str | None]:
    """A job parked under this user's name, and why it was parked before."""
    user = re.sub(r"[^A-Za-z0-9._-]+", "-", users.user_name(os.geteuid()))[:20]
    for _ in range(jobs.TRIES):
        found = lookup.locate(spool.root, word)
        with contextlib.suppress(JobMoved):  # look where it is now
            return parking.edit(spool.root, found, user), found.name.parked
    raise JobMoved(word)


def _give_back(spool: Spool, lock: Found, reason: str | None) -> None:
    """Park a job as before, unless somebody else has taken it out of the editor."""
    for _ in range(jobs.TRIES):
        found = jobs.places(spool.root, [lock.id]).found.get(lock.id)
        if found is None or found.name.parked != lock.name.parked:
            return
        with contextlib.suppress(JobMoved):  # look where it is now
            parking.park(spool.root, found, reason)
            return


@contextlib.contextmanager
def _private_copy(job_id: str, text: str) -> Iterator[Path]:
    """A file of this user alone with the text. It stays, and is named, where an error loses a change."""
    folder = Path(tempfile.mkdtemp(prefix="queuectl-edit-"))
    copy = folder / f"{job_id}.yaml"
    copy.write_bytes(text.encode())
    try:
        yield copy
    except BaseException:
        if copy.exists() and copy.read_bytes() != text.encode():
            printer.note(f"What you wrote is kept in {copy}")
            raise
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


def _edit(
    spool: Spool, found: Found, reason: str | None, editor: Sequence[str], copy: Path, head: str
) -> bool:
    """Open the copy until it is a job, and put the job back with it. False where nothing is to be changed."""
    while True:
        _open(editor, copy)
        try:
            text = documents.text_of(copy.read_bytes()) if copy.exists() else head
            if text == head:
                printer.note("Nothing was changed.")
                return False
            _put_back(spool, found, reason, head, text)
        except BadJob as error:
            if not printer.can_ask():
                raise
            printer.note(f"Error: {error}")
            if not printer.ask("Edit it again? Else the change is dropped."):
                return False
        else:
            return True


def _open(editor: Sequence[str], copy: Path) -> None:
    """Run the editor until it ends. Ctrl-C on its terminal is meant for it."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, lambda *_: None) if is_main else None
    try:
        status = subprocess.call([*editor, str(copy)])
    finally:
        if is_main:
            signal.signal(signal.SIGINT, before)
    if status != 0:
        raise QueueError(f"The editor ended with exit status {status}.", "Nothing was changed.")


def _put_back(spool: Spool, lock: Found, reason: str | None, head: str, text: str) -> None:
    """Give the job this text above its history. Raises `QueueError` where it is not as it was taken."""
    text = text if text.endswith("\n") else f"{text}\n"

    def edit(data: bytes) -> bytes:
        before, history = changes.split(documents.text_of(data))
        if before != head:
            raise QueueError(f"Job {lock.id} was changed by somebody else.", "Look at it, and edit it again.")
        job = jobfile.parse(f"{text}{history}".encode()).job
        if job.id not in {None, lock.id}:
            raise BadJob(f"The id {lock.id!r} stays as it was filed.", "Correct the line `id:`.")
        return f"{text}{history}".encode()

    how = spool.change(edit)
    with acts.hand(spool.root, spool.clock()) as me:
        for _ in range(jobs.TRIES):
            found = jobs.places(spool.root, [lock.id]).found.get(lock.id)
            if found is None:
                raise NoSuchJob(lock.id)
            is_ours = found.name.parked == lock.name.parked
            if not is_ours:
                parking.refuse_taken(found)
            if found.state not in jobs.WAITING:
                state = found.label(spool.clock())
                raise QueueError(f"Job {lock.id} is {state} by now.", "The change was not made.")
            with contextlib.suppress(JobMoved):  # look where it is now
                acts.end_edit(me, found, how, reason if is_ours else found.name.parked, spool.clock())
                return
    raise JobMoved(lock.id)
