"""The jobs that one command acts on, and Ctrl-C between two of them."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

from queuectl.cli import printer
from queuectl.cli.selecting import require
from queuectl.errors import BadJob, JobMoved, NoSuchJob, QueueError, StorageTrouble
from queuectl.spool import acts, jobs
from queuectl.view.selection import Selection, select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from queuectl.api import Spool
    from queuectl.spool.acts import Hand
    from queuectl.spool.jobs import Found


class Lot:
    """The jobs that a command acts on. All are looked up together, also again if some have moved.

    An error with one job is printed and does not stop the others; `status` is the exit status.
    """

    def __init__(self, spool: Spool, found: Iterable[Found] = ()) -> None:
        self.spool = spool
        self.left = list(found)
        self.status = 0

    @classmethod
    def of(cls, spool: Spool, chosen: Selection, *usual: str) -> Lot:
        """The jobs of a selection; of batches and of all jobs only those with a usual label."""
        require(chosen)
        selected = select(spool.root, chosen, usual, spool.clock())
        lot = cls(spool, selected.found)
        for error in selected.errors:
            lot.refuse(error)
        if not selected.found and not selected.errors:
            printer.note("No job is meant: nothing was changed.")
        return lot

    def show(self, what: str) -> int:
        """Print the ids of the jobs that a command would act on; returns the exit status."""
        for found in self.left:
            printer.line(found.id)
        printer.note(f"{printer.count(len(self.left), 'job')} would be {what}.")
        return self.status

    def refuse(self, error: QueueError) -> None:
        """Print an error and note its exit status."""
        printer.note(f"Error: {error}")
        self.status = self.status or (1 if isinstance(error, BadJob) else error.exit_status)

    def do(self, what: str, act: Callable[[Found], str | None]) -> None:
        """Act on each job that is left. A job that has moved, or for which `act` returns None, stays left."""
        todo, self.left = self.left, []
        shown = 0 if printer.is_terminal() else len(todo)  # on a terminal each line shows it
        with printer.progress(what, shown, least=printer.MANY) as advance, interruptible() as check:
            for done, found in enumerate(todo, 1):
                try:
                    check()
                    said = act(found)
                except JobMoved:
                    said = None
                except QueueError as error:
                    self.refuse(error)
                    continue
                except BaseException:
                    self.left += todo[done - 1 :]
                    raise
                if said is None:
                    self.left.append(found)
                else:
                    printer.line(said)
                advance(done)

    def do_all(self, what: str, act: Callable[[Found], str | None]) -> int:
        """Act on each job until all are done, also if they move meanwhile; returns the exit status."""
        with self._naming_what_is_left():
            for _ in range(jobs.TRIES):
                self.do(what, act)
                if not self.left:
                    return self.status
                self.look_again()
        for found in self.left:
            self.refuse(JobMoved(found.id))
        return self.status

    def look_again(self) -> None:
        """Look up the jobs that are left."""
        found = jobs.places(self.spool.root, [one.id for one in self.left]).found
        for one in self.left:
            if one.id not in found:
                self.refuse(NoSuchJob(one.id))
        self.left = [found[one.id] for one in self.left if one.id in found]

    @contextlib.contextmanager
    def hand(self) -> Iterator[Hand]:
        """Join as an owner who acts on these jobs."""
        with self._naming_what_is_left(), acts.hand(self.spool.root, self.spool.clock()) as me:
            yield me

    @contextlib.contextmanager
    def _naming_what_is_left(self) -> Iterator[None]:
        """Name the jobs that are left in an error of the disk, so that the command can be repeated."""
        try:
            yield
        except OSError as error:
            if not StorageTrouble.explains(error) or not self.left:
                raise
            trouble = StorageTrouble(error)
            trouble.remedy += f" Left as they were: {' '.join(found.id for found in self.left)}"
            raise trouble from error


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Delay Ctrl-C until the end of the block, or until the function that it yields is called.

    The second Ctrl-C is not delayed, as the disk may hang. Nothing changes where Ctrl-C is ignored, and
    outside the main thread, which never receives it.
    """
    came = False

    def note(*_: object) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    def check() -> None:
        if came:
            raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield check
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    check()
