"""What a step of a worker returns: how long to wait before the next, and for what."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class On(Enum):
    """What a worker waits for, besides the time."""

    #: Nothing: the next step is due.
    NOTHING = "nothing"
    #: A new file, a changed directory, or a request.
    RING = "ring"
    #: A request.
    CONTROL = "control"
    #: The end of the command, or a request.
    COMMAND = "command"
    #: The worker is done: no step follows.
    END = "end"


class Wait(NamedTuple):
    """How long to wait at most before the next step, in seconds, and for what."""

    on: On
    seconds: float = 0.0


GO_ON, DONE = Wait(On.NOTHING), Wait(On.END)
