"""What a copy of a process becomes, and all that it needs, imported before (see `tests.copies`)."""

import fcntl
import os
import sys
import termios

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


def take_the_terminal() -> None:
    """Make the terminal on standard error this process's own, so that Ctrl-C there reaches it."""
    os.setsid()
    fcntl.ioctl(2, termios.TIOCSCTTY, 0)


def be_a_command_on_a_terminal(words: list[str | bytes]) -> int:
    """Become a command line on a terminal."""
    take_the_terminal()
    return be_a_command(words)


def be_a_program_on_a_terminal(words: list[str | bytes]) -> int:
    """Become another program on a terminal."""
    take_the_terminal()
    os.execvp(words[0], words)


def be_a_worker(arguments: list[str], changes: str) -> int:
    """Become a worker, once it has changed how one is made."""
    exec(changes, {"Medium": Medium})
    return fleet.main(arguments)


def be_a_dashboard(arguments: list[str], changes: str) -> int:
    """Become a dashboard, once it has changed its times and limits."""
    exec(changes, {})
    return main.run(arguments)
