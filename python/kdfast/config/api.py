"""Section `api`: the server of a teacher that answers over HTTP."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from kdfast.config.section import Key, Section, invalid
from kdfast.errors import ConfigError

_SECRET_NAMES = {"key", "api_key", "apikey", "token", "access_token", "authorization", "subscription_key"}
_OWN_KEYS = {
    "n": "teacher.answers_per_prompt",
    "best_of": "teacher.answers_per_prompt",
    "max_tokens": "teacher.max_new_tokens (and api.max_tokens_key)",
    "max_completion_tokens": "teacher.max_new_tokens (and api.max_tokens_key)",
    "messages": "teacher.prompts",
    "prompt": "teacher.prompts",
}
_LOCAL_NAMES = ("localhost", "host.docker.internal")
_LOCAL_ENDINGS = (".localhost", ".local", ".internal", ".lan", ".home.arpa")


@dataclass(frozen=True, kw_only=True)
class ApiConfig(Section):
    """An OpenAI-compatible server. All keys are optional; `base_url` and `model` are needed to ask it.

    Examples:
        >>> api = ApiConfig(base_url="http://127.0.0.1:8080/v1", model="m")
        >>> api.hosted
        False
        >>> ApiConfig(base_url="api.example.com/v1")
        Traceback (most recent call last):
        ...
        kdfast.errors.ConfigError: api.base_url: must be an address such as http://127.0.0.1:8080/v1, without a
        password, query or fragment, got 'api.example.com/v1'
    """

    section: ClassVar[str] = "api"

    base_url: Annotated[
        str | None,
        Key(
            "The server's address up to /v1, with http or https; null = none.",
            on_resume=True,
        ),
    ] = None
    model: Annotated[str | None, Key("The model's name, as the server knows it.", on_resume=True)] = None
    endpoint: Annotated[
        Literal["chat/completions", "completions"],
        Key(
            "'chat/completions' sends messages and tools, 'completions' the prompt that kdfast renders by"
            " data.template.",
            on_resume=True,
        ),
    ] = "chat/completions"
    key_from_env: Annotated[
        str | None,
        Key(
            "Environment variable that holds the key; null = no key is sent. On this machine or network it may be"
            " unset.",
            on_resume=True,
        ),
    ] = "OPENAI_API_KEY"
    headers_from_env: Annotated[
        dict[str, Any] | None,
        Key(
            "More headers, each with the environment variable that holds its value, such as {api-key: AZURE_KEY}.",
            on_resume=True,
        ),
    ] = None
    query: Annotated[
        dict[str, Any] | None,
        Key("Parameters of the address, such as {api-version: '2026-01-01'}.", on_resume=True),
    ] = None
    extra_body: Annotated[
        dict[str, Any] | None,
        Key(
            "JSON that is added to each request, such as {top_p: 0.95}; it wins over kdfast's own.",
            on_resume=True,
        ),
    ] = None
    omit: Annotated[
        tuple[str, ...],
        Key("Parts of a request that the server refuses, such as [temperature, seed].", on_resume=True),
    ] = ()
    max_tokens_key: Annotated[
        str,
        Key(
            "The request's name for the limit of an answer; some servers want max_completion_tokens.",
            on_resume=True,
        ),
    ] = "max_tokens"
    max_reasoning_tokens: Annotated[
        int,
        Key(
            "Most tokens of reasoning that the server adds to teacher.max_new_tokens; they count in the worst case.",
            minimum=0,
            on_resume=True,
        ),
    ] = 0
    top_logprobs: Annotated[
        int,
        Key(
            "Log-probabilities to ask for at each token of an answer; 0 = none. Only those whose tokens are those of"
            " data.tokenizer can be used.",
            minimum=0,
            maximum=100,
            on_resume=True,
        ),
    ] = 0
    concurrency: Annotated[
        int,
        Key(
            "Most requests in flight; fewer while the server is busy.", minimum=1, maximum=512, on_resume=True
        ),
    ] = 8
    requests_per_minute: Annotated[
        float | None, Key("The server's limit; null = none.", above=0, on_resume=True)
    ] = None
    tokens_per_minute: Annotated[
        float | None,
        Key("The server's limit, prompt and answer together; null = none.", above=0, on_resume=True),
    ] = None
    timeout_seconds: Annotated[
        float,
        Key("A request that takes longer counts as lost.", above=0, maximum=86400, on_resume=True),
    ] = 300.0

    @property
    def hosted(self) -> bool:
        """Whether the address is outside this machine and network: records would leave the house."""
        if self.base_url is None:
            return False
        host = (urlsplit(self.base_url).hostname or "").lower()
        if host in _LOCAL_NAMES or host.endswith(_LOCAL_ENDINGS):
            return False
        try:
            return ipaddress.ip_address(host).is_global
        except ValueError:
            return "." in host

    def check(self) -> None:
        """Checks the address, names, and that no key of another section or of a server is given here."""
        if self.base_url is not None:
            self._check_address(self.base_url)
        for name in ("model", "key_from_env", "max_tokens_key"):
            value = getattr(self, name)
            if value is not None and not value.strip():
                raise invalid(f"api.{name}", "a text that is not blank", value)
        for header, variable in (self.headers_from_env or {}).items():
            if not isinstance(variable, str) or not variable.strip():
                allowed = "the name of an environment variable"
                raise invalid(f"api.headers_from_env.{header}", allowed, variable)
        self._check_parts()
        for name, value in (self.query or {}).items():
            if not isinstance(value, str | int) or isinstance(value, bool):
                raise invalid(f"api.query.{name}", "a text or an integer", value)

    def _check_address(self, address: str) -> None:
        if not _is_address(address):
            allowed = "an address such as http://127.0.0.1:8080/v1, without a password, query or fragment"
            raise invalid("api.base_url", allowed, _without_password(address))
        if address.rstrip("/").endswith("/completions"):
            raise invalid("api.base_url", "the address above api.endpoint, which is added", address)

    def _check_parts(self) -> None:
        for key, entries in (("query", self.query), ("extra_body", self.extra_body)):
            for name in entries or {}:
                if name.lower().replace("-", "_") in _SECRET_NAMES:
                    raise ConfigError(
                        f"api.{key}.{name}: a key must not be in a config; name the environment variable that holds it"
                        " in api.key_from_env or api.headers_from_env"
                    )
        for name, instead in _OWN_KEYS.items():
            if name in (self.extra_body or {}):
                raise ConfigError(f"api.extra_body.{name}: set {instead} instead, which counts what it costs")


def _is_address(address: str) -> bool:
    try:
        parts = urlsplit(address)
        known = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        return False
    extras = parts.query or parts.fragment or parts.username is not None or parts.password is not None
    return known and not extras and not any(char.isspace() for char in address)


def _without_password(address: str) -> str:
    """What a message shows: a key that somebody wrote into the address must not reach a log."""
    before, at, after = address.rpartition("@")
    return f"{before.split('//')[0]}//...@{after}" if at else address.split("?", maxsplit=1)[0]
