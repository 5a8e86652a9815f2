"""Ctrl-C takes effect between two steps of a long command, never within one."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Self


class Interrupts:
    """Delays Ctrl-C inside the `with` block: `check` raises `KeyboardInterrupt` if it was pressed.

    The second Ctrl-C is not delayed, as the disk may hang. Nothing changes where Ctrl-C is ignored, and
    outside the main thread, which never receives it.
    """

    def __init__(self) -> None:
        self._came = False
        self._holds = False

    def __enter__(self) -> Self:
        is_heard = threading.current_thread() is threading.main_thread()
        if is_heard and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
            self._holds = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._holds:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if error is None:
            self.check()

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._came:
            raise KeyboardInterrupt
        self._came = True

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if Ctrl-C was pressed."""
        if self._came:
            raise KeyboardInterrupt
