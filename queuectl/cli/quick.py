"""The fast reader of a plain `enqueue`: importing click takes longer than filing a job.

Other command lines, and wrong ones, are left to click, which words the errors.
"""

from __future__ import annotations

import os
import sys

from queuectl.cli import boundary
from queuectl.errors import NotPrinted, QueueError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from queuectl.api import Spool
    from queuectl.job.model import Job

_SPOOL = ("--spool", "-s")


def run(arguments: Sequence[str]) -> int | None:
    """Run a plain `enqueue` and return its exit status; None, with nothing done, for other command lines."""
    where, rest = None, list(arguments)
    if len(rest) > 1 and rest[0] in _SPOOL:
        where, rest = rest[1], rest[2:]
    return _enqueue(where, rest[1:]) if rest[:1] == ["enqueue"] else None


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
    # From here on an error is reported as it is: what was tried once is not tried again.
    return boundary.status_of(lambda: _file(spool, job))


def _file(spool: Spool, job: Job) -> None:
    (filed,) = spool.file_checked([job])
    if filed.error:
        raise filed.error
    try:
        sys.stdout.write(f"{filed.id}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python would try again at its end
        raise NotPrinted([filed.id], error) from None


def _read(arguments: list[str]) -> tuple[dict[str, str], list[str], str | list[str] | None] | None:
    """The options' texts, the variables and the command; None for a command line that is not plain."""
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
    if line.is_list:
        return given, env, line.words or None
    word = line.words[0] if line.words else ""
    if len(line.words) > 1:
        return None if ":" in word else (given, env, line.words)  # perhaps JSON without its quotes
    is_other = word == "-" or word.lstrip().startswith(("{", "[", "'{"))
    return None if is_other else (given, env, word or None)


def _fields(given: dict[str, str], env: list[str], command: str | list[str] | None) -> dict[str, Any]:
    from queuectl.cli import options

    fields = options.fields(given, env)
    if command is not None:
        fields["command"] = command
    return fields if "cwd" in fields else fields | {"cwd": options.here()}
