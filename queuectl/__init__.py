"""A job queue of shell commands: each job is a file, the directory it lies in is its state."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from queuectl.api import Spool as Spool
    from queuectl.errors import QueueError as QueueError
    from queuectl.job.model import Job as Job
    from queuectl.job.model import State as State
    from queuectl.version import __version__ as __version__

__all__ = ["Job", "QueueError", "Spool", "State", "__version__"]

_HOMES = {
    "Job": "job.model",
    "QueueError": "errors",
    "Spool": "api",
    "State": "job.model",
    "__version__": "version",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that the command line starts faster."""
    if name not in _HOMES:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(f"queuectl.{_HOMES[name]}"), name)
