"""Asks a teacher's server which models it has, which costs nothing: the one thing to ask before anything is paid."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass

import httpx2

from kdfast.config import ApiConfig
from kdfast.errors import TeacherError
from kdfast.files import parse_json
from kdfast.teacher.api.error_words import one_line, read_server_error
from kdfast.teacher.api.secrets_from_env import Secrets

_TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What came back.

    Attributes:
        status: the HTTP status.
        models: the names of the models; None = the body is no list of models.
        words: the server's words about an error, or where it redirects to, without secrets; "" = none.
    """

    status: int
    models: tuple[str, ...] | None
    words: str


def list_models(api: ApiConfig, secrets: Secrets) -> Listed:
    """Asks for `api.base_url` + `/models`, as OpenAI's API has it; proxies and certificates as for the teacher.

    Args:
        api: address and parameters; its `base_url` is set.
        secrets: key and headers; they are in nothing that comes back.

    Raises:
        TeacherError: no whole response came.

    Example:
        >>> from kdfast.teacher.api.fake_server import FakeServer
        >>> with FakeServer(lambda _: "unauthorised") as server:
        ...     list_models(ApiConfig(base_url=server.url), Secrets(key="kd-0123456789")).status
        401
    """
    return asyncio.run(_ask(api, secrets))


async def _ask(api: ApiConfig, secrets: Secrets) -> Listed:
    headers = {"Accept": "application/json", **secrets.headers}
    if secrets.key is not None:
        headers["Authorization"] = f"Bearer {secrets.key}"
    query = {name: str(value) for name, value in (api.query or {}).items()} or None
    try:
        async with (
            asyncio.timeout(_TIMEOUT_S),
            httpx2.AsyncClient(
                trust_env=api.hosted,
                verify=True if api.hosted else ssl.create_default_context(),
                headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()],
                follow_redirects=False,
                timeout=_TIMEOUT_S,
            ) as http,
        ):
            response = await http.get(f"{(api.base_url or '').rstrip('/')}/models", params=query)
    except (TimeoutError, httpx2.TimeoutException):
        raise TeacherError(f"no whole response within {_TIMEOUT_S:g} s", retryable=True) from None
    except (httpx2.TransportError, httpx2.DecodingError, httpx2.InvalidURL, ImportError, ValueError) as error:
        # ImportError, ValueError: of a proxy that the environment names
        words = one_line(str(error), secrets.values) or type(error).__name__
        raise TeacherError(words, retryable=True) from None
    words = ""
    if 300 <= response.status_code < 400:
        words = one_line(response.headers.get("location", ""), secrets.values)
    elif response.status_code >= 400:
        words = read_server_error(response.content, secrets.values).words
    return Listed(status=response.status_code, models=_names(response.content), words=words)


def _names(body: bytes) -> tuple[str, ...] | None:
    try:
        document = parse_json(body)
    except ValueError:
        return None
    entries = (
        document.get("data") if isinstance(document, dict) else document
    )  # some servers give the bare list
    if not isinstance(entries, list):
        return None
    names = (entry.get("id") for entry in entries if isinstance(entry, dict))
    return tuple(name for name in names if isinstance(name, str))
