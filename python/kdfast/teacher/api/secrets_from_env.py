"""The key and the headers that a server wants: read from environment variables, and shown to nobody."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from kdfast.config import ApiConfig
from kdfast.errors import ConfigError

LEAST_CHARS = 8
"""A shorter text cannot be hidden: it is a word such as EMPTY, which servers of your own want, and answers hold it."""

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OWN_NAMES = ("content-length", "content-type", "accept-encoding", "transfer-encoding", "connection", "host")


@dataclass(frozen=True, kw_only=True, repr=False)
class Secrets:
    """What is sent in the headers of each request.

    Attributes:
        key: the key, sent as `Authorization: Bearer KEY`; None = none.
        headers: more headers.

    Examples:
        >>> secrets = Secrets(key="kd-0123456789", headers={"api-key": "kd-abcdefghij"})
        >>> secrets
        Secrets(hidden)
        >>> secrets.values
        ('kd-0123456789', 'kd-abcdefghij')
    """

    key: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "Secrets(hidden)"

    @property
    def values(self) -> tuple[str, ...]:
        """All texts that must appear nowhere, also as JSON and addresses write them; none is below `LEAST_CHARS`."""
        forms = (form for text in self._texts() if len(text) >= LEAST_CHARS for form in _forms(text))
        return tuple(dict.fromkeys(forms))

    def _texts(self) -> Iterable[str]:
        if self.key is not None:
            yield self.key
        for name, value in self.headers.items():
            yield value
            if name.lower() in ("authorization", "proxy-authorization"):
                yield from value.split()  # `Bearer KEY`: a server may repeat the key alone


def _forms(text: str) -> tuple[str, ...]:
    as_json = (json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))
    return (text, *as_json, text.replace("/", "\\/"), quote(text, safe=""))


def read_secrets(api: ApiConfig, environ: Mapping[str, str]) -> Secrets:
    """Reads the key and the headers that a config names.

    Args:
        api: the config; `key_from_env` and `headers_from_env` name variables.
        environ: the environment's variables.

    Raises:
        ConfigError: a variable is not set, or its value cannot be a header. No message shows a value.

    Examples:
        >>> api = ApiConfig(base_url="http://127.0.0.1:8080/v1", key_from_env="KEY")
        >>> read_secrets(api, {"KEY": " kd-0123456789 "}).key, read_secrets(api, {}).key
        ('kd-0123456789', None)
        >>> read_secrets(ApiConfig(base_url="https://example.com/v1"), {})
        Traceback (most recent call last):
        ...
        kdfast.errors.ConfigError: api.key_from_env: set the environment variable to the server's key, or the config key
        to null if the server wants none: OPENAI_API_KEY
    """
    key = None if api.key_from_env is None else _value("api.key_from_env", api.key_from_env, environ)
    if key is None and api.key_from_env is not None and api.hosted:
        raise ConfigError(
            "api.key_from_env: set the environment variable to the server's key, or the config key to null if the"
            f" server wants none: {api.key_from_env}"
        )
    if key is not None and api.hosted and len(key) < LEAST_CHARS:
        raise ConfigError(
            f"api.key_from_env: the environment variable holds less than {LEAST_CHARS} characters, which is no key of"
            f" a hosted server; set it to the server's key: {api.key_from_env}"
        )
    headers: dict[str, str] = {}
    for name, variable in (api.headers_from_env or {}).items():
        path = f"api.headers_from_env.{name}"
        _check_name(path, name, headers, key)
        value = _value(path, variable, environ)
        if value is None:
            raise ConfigError(f"{path}: set the environment variable to the header's value: {variable}")
        headers[name] = value
    return Secrets(key=key, headers=headers)


def _check_name(path: str, name: str, others: Mapping[str, str], key: str | None) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{path}: must be the name of a header, of letters, digits and '-': {name!r}")
    if name.lower() in _OWN_NAMES:
        raise ConfigError(f"{path}: kdfast writes this header itself; remove it: {name!r}")
    if name.lower() in [other.lower() for other in others]:
        raise ConfigError(f"{path}: the header is there twice; remove one: {name!r}")
    if name.lower() == "authorization" and key is not None:
        raise ConfigError(f"{path}: the key is sent in this header; set api.key_from_env to null: {name!r}")


def _value(path: str, variable: str, environ: Mapping[str, str]) -> str | None:
    """The stripped value of a variable; None if it is not set or blank."""
    value = environ.get(variable, "").strip()
    if any(ord(char) > 255 or not (char.isprintable() or char == "\xa0") for char in value):
        raise ConfigError(
            f"{path}: the environment variable's value cannot be a header (a line break, a control character or one"
            f" that is not latin-1); set it anew: {variable}"
        )
    return value or None
