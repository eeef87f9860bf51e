"""The objects that checks look at: each is made once, when it is first needed. No torch in here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Self

from kdfast.errors import KdfastError

EXPECTED = (KdfastError, OSError)
"""Errors that say what is wrong and what to do."""

FOREIGN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    MemoryError,
)
"""Errors that libraries raise on files that nobody thought of. All else that was found must not be lost by one."""

Maker = Callable[..., Any]
"""Makes an object. Its parameters are names of other objects."""


class NotMadeError(Exception):
    """An object cannot be made.

    Attributes:
        name: the object at fault.
        cause: why.
    """

    def __init__(self, name: str, cause: Exception) -> None:
        super().__init__(name, cause)
        self.name, self.cause = name, cause


class Objects:
    """Objects by name, and how to make those that are not there yet.

    Args:
        makers: name -> its maker. A maker may take `objects`, all of them, and get those that it needs in some cases
            only.
        given: objects that are there from the start.

    Example:
        >>> objects = Objects({"double": lambda number: 2 * number}, {"number": 4})
        >>> objects.get("double"), objects.replaced(number=5).get("double")
        (8, 10)
        >>> objects.call(lambda double, number: double + number)
        12
    """

    def __init__(self, makers: Mapping[str, Maker], given: Mapping[str, Any]) -> None:
        self._makers = makers
        self._there = {**given, "objects": self}
        self._failed: dict[str, NotMadeError] = {}

    def get(self, name: str) -> Any:
        """The object of this name.

        Raises:
            NotMadeError: it, or an object that it is made of, cannot be made.
        """
        if name in self._failed:
            raise self._failed[name]
        if name not in self._there:
            try:
                self._there[name] = self.call(self._makers[name])
            except NotMadeError as error:
                self._failed[name] = error
                raise
            except (*EXPECTED, *FOREIGN) as error:
                self._failed[name] = NotMadeError(name, error)
                raise self._failed[name] from error
        return self._there[name]

    def made(self, name: str) -> Any:
        """The object of this name if it is there; None = nobody needed it, or it could not be made."""
        return self._there.get(name)

    @property
    def failures(self) -> list[NotMadeError]:
        """The objects that could not be made, each once, without those that only needed one of these."""
        return [error for name, error in self._failed.items() if error.name == name]

    def call(self, function: Callable[..., Any]) -> Any:
        """Calls a function with the objects that its parameters name.

        Raises:
            NotMadeError: one of them cannot be made.
        """
        return function(**{name: self.get(name) for name in needs(function)})

    def replaced(self, **changed: Any) -> Self:
        """The same objects, but for these; what is made of them is made anew."""
        stale = {name for name in self._makers if set(changed) & self.needed_by(name)}
        kept = {name: value for name, value in self._there.items() if name not in {*stale, "objects"}}
        return type(self)(self._makers, {**kept, **changed})

    def needed_by(self, name: str) -> set[str]:
        """All objects that this one is made of, directly or through others."""
        direct = set(needs(self._makers[name])) if name in self._makers else set()
        return direct.union(*(self.needed_by(one) for one in direct))


@cache
def needs(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's parameters."""
    return tuple(inspect.signature(function).parameters)
