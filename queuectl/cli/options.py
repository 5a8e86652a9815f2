"""What the options of `enqueue` say, as fields of a job."""

from __future__ import annotations

import os

from queuectl.errors import BadUsage, QueueError
from queuectl.job import iso, parse_moment, utc_now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def fields(
    plain: dict[str, str], run_at: str | None, delay: str | None, cwd: str | None, env: Iterable[str]
) -> dict[str, Any]:
    """The fields that were given as options; `plain` are those whose text is the value as it stands."""
    found: dict[str, Any] = plain | times(run_at, delay)
    if cwd is not None:
        found["cwd"] = os.path.abspath(cwd)
    if variables := dict(_variable(text) for text in env):
        found["env"] = variables
    return found


def times(run_at: str | None, delay: str | None) -> dict[str, str]:
    """The field `run_at`, if one of the two was given; raises `BadUsage`."""
    if run_at is not None and delay is not None:
        raise BadUsage("--run-at and --delay say the same.", "Give one of them.")
    text = run_at if delay is None else f"+{delay.removeprefix('+')}"
    if text is None:
        return {}
    try:
        return {"run_at": iso(parse_moment(text.strip(), utc_now()))}
    except (ValueError, OverflowError):
        option = "--run-at" if delay is None else "--delay"
        raise BadUsage(
            f"{option}: {(run_at or delay)!r} is no time.",
            "Write 2026-11-08T15:00:00Z, or +10m, 90s, 2h, 1d.",
        ) from None


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise BadUsage(f"--env: {text!r} is not NAME=VALUE.", "Write for example --env MODE=fast.")
    return name, value


def here() -> str:
    """The directory that a job runs in which names none; raises `QueueError` where it is gone."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise QueueError(
            "The directory you are in is gone.", "Say --cwd DIR, or go to another one."
        ) from None
