"""llama.cpp's parser of calls, asked about a text of our choice."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from kdfast.errors import DataError

_ANSWER_S = 600.0
_CERTAIN = 1000  # added to a logit
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback needs no proxy


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """What the server's parser finds in a text.

    Attributes:
        calls: name, and arguments as JSON text.
        error: why it found nothing, in the server's words; None = it parsed the text.
        refused: the server does not take such a request; nothing is known of its parser.
    """

    calls: tuple[tuple[str, str], ...] = ()
    error: str | None = None
    refused: bool = False


def parse_answer(
    url: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    text: str,
    *,
    end_id: int,
    template_kwargs: Mapping[str, Any] | None = None,
) -> Parsed:
    """Lets a server parse an answer as if the model had written it.

    The text is the begin of the model's turn, which the server continues; its next token is made to be an end token. So
    the server's whole way is taken: its format, its parser, its message. A grammar that allows this text alone would be
    plainer, but the server refuses a grammar beside tools.

    Args:
        url: the server's address.
        messages: the conversation before the answer, as in the chat API.
        tools: as in the chat API.
        text: the answer.
        end_id: a token id at which llama.cpp stops.
        template_kwargs: further variables of the chat template.

    Raises:
        DataError: the server ended, or answers something else than its API says.
    """
    body: dict[str, Any] = {
        "messages": [*messages, {"role": "assistant", "content": text}],
        "max_tokens": 1,
        "temperature": 0,
        "logit_bias": [[end_id, _CERTAIN]],
        "cache_prompt": True,  # the text is given: a cache cannot change it
    }
    if tools:
        body |= {"tools": list(tools), "tool_choice": "auto", "parallel_tool_calls": True}
    if template_kwargs:
        body["chat_template_kwargs"] = dict(template_kwargs)
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with _OPENER.open(request, timeout=_ANSWER_S) as answer:
            message = json.loads(answer.read())["choices"][0]["message"]
            calls = [call["function"] for call in message.get("tool_calls") or ()]
            return Parsed(calls=tuple((str(call["name"]), str(call["arguments"])) for call in calls))
    except urllib.error.HTTPError as error:
        with error:
            words = error.read().decode(errors="replace")
        # The server answers 400 to a request that it does not take, 500 to a text that its parser does not.
        return Parsed(error=_message(words), refused=error.code < 500)
    except (OSError, HTTPException) as error:
        raise DataError(f"llama.cpp's server ended ({error})", source=url) from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"llama.cpp's server answers otherwise than kdfast knows it; take another version of xllamacpp: {error}",
            source=url,
        ) from None


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return text[:200]
