"""Whether a mount suits a queue: two runs, on two hosts, test what the queue relies on.

`meeting` is how they meet, `trial` what they try, `report` what the figures mean. The steps:

both      hello         each finds others by listing
both      meets-NAME    and answers them; two that have answered each other begin
both      ping, pong    how soon a new name is seen
both      lists, paired files made in quick succession by the first, listed by the second meanwhile
both      ready, race   files made exclusively, files renamed
both      result, bye   what each has won is compared
second    gone          then the first one clears the table

The name of each file starts with the name of a run, so files of a third run or a dead one do no harm.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from queuectl.errors import QueueError
from queuectl.view.share_check.meeting import FOLDER, Table
from queuectl.view.share_check.report import Report, judged
from queuectl.view.share_check.trial import compare, measure, mount_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: The run ends after this many seconds without any answer of the share.
HANGS = 60.0
#: An interrupted run has this many seconds to remove its files.
STOPPING = 5.0


def check(folder: Path, patience: float, tell: Callable[[str], None]) -> Report:
    """Measure the mount that holds `folder`, with another run of this if one comes within `patience`.

    Leaves nothing behind. Raises `QueueError` if a third run takes part, if the other run goes away, or if
    the share does not answer for `HANGS` seconds. A call that hangs stays in a daemon thread.
    """
    table = Table(folder.absolute() / FOLDER, tell)
    found: list[Report | BaseException] = []
    is_done = threading.Event()  # in Python 3.11 an interrupted `join` marks a thread as ended

    def run() -> None:
        try:
            found.append(_check(folder, patience, table))
        except BaseException as error:  # noqa: BLE001 - it is raised below, in the thread that waits
            found.append(error)
        is_done.set()

    threading.Thread(target=run, name="check --share", daemon=True).start()
    try:
        while not is_done.wait(0.2):
            if table.silence() > HANGS:
                raise QueueError(
                    f"{folder} has not answered for {HANGS:g} s: it hangs in `{table.call}`.",
                    "See whether its server can be reached, then start both again.",
                )
    finally:
        table.is_left = True  # Ctrl-C: the thread clears the table at its next step
        is_done.wait(STOPPING)
    (result,) = found
    if isinstance(result, BaseException):
        raise result
    return result


def _check(folder: Path, patience: float, table: Table) -> Report:
    table.sit()
    try:
        alone = measure(folder, table)
        together = None
        table.put("hello", {"place": mount_of(folder)})
        table.tell(
            f"Waiting for `queuectl check --share {folder}` on another host, for {patience:g} s at most."
        )
        if table.find_other(patience):
            table.tell("There it is; both test the share now.")
            try:
                together = compare(folder, table, alone)
            except FileNotFoundError:  # the other run has removed its files and is gone
                raise table.stuck() from None
        return judged(folder, alone, together, table.silent)
    finally:
        table.clear()
        with contextlib.suppress(OSError):  # another run is still there and removes it
            table.place.rmdir()
