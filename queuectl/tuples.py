"""`NamedTuple` without the import of `typing`, which takes a sixth of the CPU time of an `enqueue`.

Measured with 40 plain enqueues in turn, three times: 25 ms each with `typing`, 21 ms without, where
`python -c pass` takes 8 ms. So the modules that a plain `enqueue` imports take `NamedTuple` from here and
set `TYPE_CHECKING = False` themselves. Type checkers treat both as those of `typing`.
"""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
    from typing import NamedTuple as NamedTuple  # noqa: PLC0414 - to be imported from here
else:

    class _Fields(type):
        """Makes a class from its annotated names, as `collections.namedtuple` does."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = body["__annotations__"]
            defaults = [body.pop(field) for field in fields if field in body]
            base = namedtuple(name, fields, defaults=defaults)  # noqa: PYI024 - what else is it made of
            return type(name, (base,), {"__slots__": (), **body})

    class NamedTuple(metaclass=_Fields):
        """A tuple whose fields have names."""
