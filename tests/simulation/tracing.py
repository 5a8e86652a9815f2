"""A readable trace: each call of each process with its result, and what the workers log, a line each."""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.world import World

_TRACED = ["open", "close", "write", "read", "ftruncate", "fsync", "fstat", "lstat", "stat", "listdir"]
_TRACED += ["mkdir", "rmdir", "unlink", "rename", "replace", "chmod"]


class _Log(logging.Handler):
    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        """Add what a process logs."""
        self._world.say(self._world.current, f"logs: {record.getMessage()}")


def trace(world: World) -> None:
    """Write down what happens from here on."""
    log = logging.getLogger("queuectl")
    log.handlers, log.propagate = [_Log(world)], False
    log.setLevel(logging.INFO)
    for name in _TRACED:
        setattr(world.kernel, name, _traced(world, name, getattr(world.kernel, name)))


def _traced(world: World, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def made(*arguments: Any, **named: Any) -> Any:
        opened = world.kernel.opened(arguments[0]) if isinstance(arguments[0], int) else None
        shown = " ".join(map(str, (opened or arguments[0], *arguments[1:2])))[:160].replace("/spool/", "")
        who = world.current
        try:
            result = call(*arguments, **named)
        except OSError as problem:
            world.say(who, f"{name:9} {shown} = {errno.errorcode.get(problem.errno or 0, '?')}")
            raise
        brief = "" if hasattr(result, "st_size") or result is None else f" = {str(result)[:300]}"
        world.say(who, f"{name:9} {shown}{brief}")
        return result

    return made
