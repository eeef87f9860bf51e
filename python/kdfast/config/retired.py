"""Keys that older versions had: a config that only says what is now always so still loads."""

from __future__ import annotations

from dataclasses import dataclass

from kdfast.errors import ConfigError


@dataclass(frozen=True)
class Retired:
    """A key that is gone.

    Attributes:
        accepted: the value that is now always so; a config with it loads, and the key is dropped.
        remedy: what to do about any other value.
    """

    accepted: object
    remedy: str


RETIRED = {
    "kd.fused": Retired(
        True, "the plain losses were slower and gave equal numbers, so there is one path now; remove the key"
    ),
}


def is_retired(key: str, value: object) -> bool:
    """Whether a dotted key is retired; then it is to be dropped.

    Raises:
        ConfigError: it is, and the value asks for what is gone.

    Examples:
        >>> is_retired("kd.fused", True), is_retired("kd.kl_weight", 0.5)
        (True, False)
        >>> is_retired("kd.fused", False)
        Traceback (most recent call last):
        ...
        kdfast.errors.ConfigError: kd.fused: retired; the plain losses were slower and gave equal numbers, so there is \
one path now; remove the key, got False
    """
    retired = RETIRED.get(key)
    if retired is None:
        return False
    if value is not retired.accepted:
        raise ConfigError(f"{key}: retired; {retired.remedy}, got {value!r}")
    return True
