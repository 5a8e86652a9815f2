"""A job in the hands of another engine: the words that start it there, with its directory and variables."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from queuectl.job.model import Job
    from queuectl.settings import Settings

#: Stands for the command as one word, which a shell at the other end takes apart again.
COMMAND = "{command}"

#: The variable that gives a launcher the seconds in which it must end its job.
GRACE = "QUEUECTL_LAUNCHER_GRACE"

# The standard input of ssh stays open while the worker lives and wants the job. Its end reaches the
# other host whatever happens to the client, to the worker, or to the host of both: sshd itself ends
# nothing when a client goes away.
_WATCHED = """\
exec 3<&0 </dev/null
s=$(command -v setsid)
$s /bin/sh -c {script} 3<&- & j=$!
(
  cat <&3
  kill -TERM -$j || kill -TERM $j
  sleep {grace}
  kill -KILL -$j || kill -KILL $j
) >/dev/null 2>&1 & d=$!
exec 3<&-
wait $j; r=$?
kill $d 2>/dev/null
kill -KILL -$j 2>/dev/null
exit $r
"""


class Launch(NamedTuple):
    """The words to start here. With `lifeline` the end of their standard input asks them to end."""

    words: tuple[str, ...]
    lifeline: bool


def launch(job: Job, settings: Settings, variables: Mapping[str, str]) -> Launch:
    """How the job's or else the config's launcher starts a command.

    `variables` are those that the command is to have, its id and attempt among them.
    """
    text = settings.launcher if job.launcher is None else job.launcher
    job_id, attempt = variables["QUEUECTL_JOB_ID"], variables["QUEUECTL_ATTEMPT"]
    words = [word.replace("{id}", job_id).replace("{attempt}", attempt) for word in shlex.split(text)]
    script = _script(job, variables)
    watched = os.path.basename(words[0]) == "ssh"
    if watched:
        script = _WATCHED.format(script=shlex.quote(script), grace=f"{settings.stop_grace_seconds:g}")
    command = ("/bin/sh", "-c", script)
    if any(COMMAND in word for word in words):
        words = [word.replace(COMMAND, shlex.join(command)) for word in words]
    else:
        words += [shlex.join(command)] if watched else command
    return Launch(tuple(words), watched)


def _script(job: Job, variables: Mapping[str, str]) -> str:
    """The script for a shell at the other end: an engine may pass on neither directory nor variables."""
    command = ("/bin/sh", "-c", job.command) if isinstance(job.command, str) else job.command
    given = [f"{name}={value}" for name, value in variables.items()]
    enter = "" if job.cwd is None else f"cd {shlex.quote(job.cwd)} || exit 126; "
    return f"{enter}exec env {shlex.join([*given, *command])}"
