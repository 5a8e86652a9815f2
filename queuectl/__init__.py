"""A job queue of shell commands: each job is a file, the directory it lies in is its state."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from queuectl.errors import QueueError as QueueError
    from queuectl.job import Job as Job
    from queuectl.job import State as State
    from queuectl.spool.spool import Spool as Spool

__version__ = "0.1.0"
__all__ = ["Job", "QueueError", "Spool", "State"]

_HOMES = {"Job": "job", "QueueError": "errors", "Spool": "spool.spool", "State": "job"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command line starts faster so."""
    if name not in _HOMES:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(f"queuectl.{_HOMES[name]}"), name)
