"""A plain `enqueue` and `worker start` without click, whose import takes longer than what they do.

What is not plain, and what cannot be done, is left to the whole command line: it tells people.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from queuectl.errors import QueueError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

#: Those whose text is not the value as it stands.
_LOOKED_INTO = {"run_at", "delay", "cwd", "env"}
_SPOOL = ("--spool", "-s")
#: The options of workers that stay, with what `fleet.run` wants to know of each.
_STAYING = {
    "--drain": ("drain", "now"),
    "--drain=now": ("drain", "now"),
    "--drain=retries": ("drain", "retries"),
    "--drain=all": ("drain", "all"),
    "--foreground": ("foreground", "now"),
    "-f": ("foreground", "now"),
}


def run(arguments: Sequence[str]) -> int | None:
    """Do what a plain command line asks for; returns the exit status.

    None, and nothing is done, for any other command line.
    """
    where, rest = None, list(arguments)
    if len(rest) > 1 and rest[0] in _SPOOL:
        where, rest = rest[1], rest[2:]
    if rest[:1] == ["enqueue"]:
        return _enqueue(where, rest[1:])
    if rest[:2] == ["worker", "start"]:
        return _work(where, rest[2:])
    return None


def _work(where: str | None, options: list[str]) -> int | None:
    """Be the workers that stay in the foreground until they end."""
    count = 1
    words = [word for word in options if word not in _STAYING]
    if words[:1] in (["--count"], ["-n"]) and len(words) == 2 and words[1] in map(str, range(1, 1000)):
        count = int(words[1])
    elif words:
        return None
    given = {_STAYING[word] for word in options if word in _STAYING}
    if len(given) != 1:
        return None
    ((kind, until),) = given
    _hold_ctrl_c()
    from queuectl.api import Spool
    from queuectl.cli.places import place
    from queuectl.spool import requests

    try:
        root = Spool(place(where)).root
        if requests.is_paused(root):
            return None
    except (QueueError, OSError):
        return None
    try:
        from queuectl.worker import fleet

        return fleet.run(root, kind, count, until)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - told, or raised again
        return _told(error)


def _told(error: BaseException) -> int:
    from queuectl.cli.main import told

    return told(error)


def _hold_ctrl_c() -> None:
    """Let a Ctrl-C wait until the workers are there to end in order.

    Python forgets some that come within an import, and makes another error of others.
    """
    import signal

    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _enqueue(where: str | None, options: list[str]) -> int | None:
    """File a job and print its id."""
    given = _read(options)
    if given is None:
        return None
    from queuectl.api import Spool
    from queuectl.cli.places import place
    from queuectl.job.fields import from_fields

    try:
        spool, job = Spool(place(where)), from_fields(_fields(*given))
    except (QueueError, OSError, ValueError):
        return None
    try:
        job_id = spool.file(job)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - told, or raised again
        return _told(error)  # what was tried once is not tried again
    return _tell(job_id)


def _tell(job_id: str) -> int:
    try:
        sys.stdout.write(f"{job_id}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        problem = f"The id {job_id} cannot be printed: {error.strerror}."
        sys.stderr.write(f"Error: {problem}\nThe job is filed all the same.\n")
        return 1
    return 0


def _read(arguments: list[str]) -> tuple[dict[str, str], list[str], str | list[str] | None] | None:
    """What the options say, the variables, and the command outside them; None for what is not plain."""
    from queuectl.cli import options

    try:
        line = options.read(arguments)
    except (options.Unread, QueueError):
        return None
    if any(option not in options.FIELDS for option, _ in line.said):
        return None
    given = {option.key: value for option, value in line.said}
    env = [value for option, value in line.said if option.key == "env"]
    if bool(line.words) + ("command" in given) != 1:
        return None
    if line.is_list or len(line.words) > 1:
        return given, env, line.words or None
    word = "".join(line.words)
    return None if word == "-" or word.lstrip().startswith(("{", "[")) else (given, env, word or None)


def _fields(given: dict[str, str], env: list[str], command: str | list[str] | None) -> dict[str, Any]:
    from queuectl.cli import options

    plain = {name: text for name, text in given.items() if name not in _LOOKED_INTO}
    run_at, delay, cwd = (given.get(name) for name in ("run_at", "delay", "cwd"))
    fields = options.fields(plain, run_at, delay, cwd, env)
    if command is not None:
        fields["command"] = command
    return fields if cwd is not None else fields | {"cwd": options.here()}
