"""Section `price`: what a teacher's tokens cost."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, ClassVar

from kdfast.config.section import Key, Section, invalid


@dataclass(frozen=True, kw_only=True)
class PriceConfig(Section):
    """Prices of a million tokens, in any currency. A price that nobody gave is not 0: it is an error when it is needed.

    Examples:
        >>> PriceConfig(input=0.15, output=0.6).known
        True
        >>> PriceConfig().known
        False
        >>> PriceConfig(free=True, input=0.15)
        Traceback (most recent call last):
        ...
        kdfast.errors.ConfigError: price.free: must be false beside prices, got True
    """

    section: ClassVar[str] = "price"

    free: Annotated[bool, Key("The teacher costs nothing, as a server of your own does.", on_resume=True)] = (
        False
    )
    input: Annotated[float | None, Key("Of a million tokens of prompts.", minimum=0, on_resume=True)] = None
    cached: Annotated[
        float | None,
        Key("Of those that the server has in its cache; null = as price.input.", minimum=0, on_resume=True),
    ] = None
    output: Annotated[float | None, Key("Of a million tokens of answers.", minimum=0, on_resume=True)] = None
    reasoning: Annotated[
        float | None,
        Key("Of reasoning before the answer; null = as price.output.", minimum=0, on_resume=True),
    ] = None

    @property
    def known(self) -> bool:
        """Whether the cost of a request can be told."""
        return self.free or (self.input is not None and self.output is not None)

    def check(self) -> None:
        """Checks that prices are whole, and not beside `free`."""
        given = [
            name for name in ("input", "cached", "output", "reasoning") if getattr(self, name) is not None
        ]
        if self.free and given:
            raise invalid("price.free", "false beside prices", True)
        for name in ("input", "output"):
            if given and getattr(self, name) is None:
                raise invalid(f"price.{name}", "a number, as there are other prices", None)
        if given and not any(getattr(self, name) for name in given):
            raise invalid(
                "price.input", "above 0; if the teacher costs nothing, set price.free to true", self.input
            )
        for name in given:
            if (Decimal(str(getattr(self, name))) * 1_000_000) % 1:
                raise invalid(f"price.{name}", "a number with at most 6 decimals", getattr(self, name))
