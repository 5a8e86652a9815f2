"""The command `queuectl`."""

from __future__ import annotations

import contextlib
import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    # Imported modules stay: searching them for garbage takes a tenth of the start.
    gc.disable()
    try:
        _hold_standard_streams()
        status = _run()
    except (KeyboardInterrupt, RuntimeError) as error:
        from queuectl.errors import is_interrupt  # not above: an import there could be interrupted, too

        if not is_interrupt(error):
            raise
        sys.stderr.write("Interrupted.\n")
        status = 130
    _leave(status)


def _run() -> int:
    from queuectl.cli import quick

    status = quick.run(sys.argv[1:])
    if status is not None:
        return status
    gc.enable()
    from queuectl.cli.main import run

    return run()


def _hold_standard_streams() -> None:
    """Open the null device for each closed standard stream: the next opened file would take its number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _leave(status: int) -> NoReturn:
    """Exit at once: the interpreter's shutdown takes as long as filing a job."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
