"""The command `queuectl`."""

from __future__ import annotations

import contextlib
import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> None:
    """Run the command line and exit with its status."""
    # What is imported stays: looking through it for garbage takes a tenth of the start.
    gc.disable()
    from queuectl.cli import quick

    status = quick.run(sys.argv[1:])
    if status is not None:
        _leave(status)
    gc.enable()
    from queuectl.cli.main import run

    sys.exit(run())


def _leave(status: int) -> NoReturn:
    """Exit at once: what an interpreter clears away at its end takes as long as filing a job."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
