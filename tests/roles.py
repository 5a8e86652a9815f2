"""What a copy of a process becomes, and all that it needs, imported before (see `tests.copies`)."""

import os
import sys

from queuectl import __main__
from queuectl.cli import main, quick
from queuectl.cli import web as web_commands
from queuectl.system.medium import Medium
from queuectl.web import rendering, server
from queuectl.worker import fleet

IMPORTED = (quick, web_commands, server)
rendering.compile_all()


def be_a_command(words: list[str | bytes]) -> int:
    """Become a command line."""
    sys.argv[1:] = map(os.fsdecode, words)
    __main__.main()


def be_a_worker(arguments: list[str], changes: str) -> int:
    """Become a worker, once it has changed how one is made."""
    exec(changes, {"Medium": Medium})
    return fleet.main(arguments)


def be_a_dashboard(arguments: list[str], changes: str) -> int:
    """Become a dashboard, once it has changed its times and limits."""
    exec(changes, {})
    return main.run(arguments)
