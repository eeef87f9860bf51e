"""From a prompt to the request that is sent: the same bytes for the same prompt and config, in every process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from kdfast.errors import ConfigError, DataError
from kdfast.teacher.api.journal import Request
from kdfast.teacher.api.sent_messages import Json, sent_choice, sent_messages, sent_tools
from kdfast.teacher.api.tool_names import ToolNames
from kdfast.teacher.prompts import Prompt

if TYPE_CHECKING:
    from kdfast.config import Config

CHAT = "chat/completions"

_LIMITS = ("max_tokens", "max_completion_tokens")
"""Names of the limit of an answer that servers know. Where a request has several, the largest counts."""

_TOKENS_A_PART = 16
_TOKENS_A_REQUEST = 64


@dataclass(frozen=True, kw_only=True)
class RequestSettings:
    """What a config says about requests.

    Attributes:
        base_url: the address that `endpoint` is below.
        model: the model's name, as the server knows it.
        endpoint: `chat/completions` or `completions`.
        query: parameters of the address.
        headers: names of the headers that the config adds, sorted, in lower case. Their values are no part of a
            request.
        extra_body: what is added to each body; it wins.
        omit: keys that are taken out of each body.
        max_tokens_key: the body's name for the limit of an answer.
        top_logprobs: log-probabilities to ask for at each token; 0 = none.
        max_new_tokens: the limit of an answer, in tokens.
        temperature: 0 = the likeliest answer.
        seed: sent with a temperature, plus the sample's number.
        answers_per_prompt: how many samples a prompt has.
        template: SHA-256 of the source of the chat template that prompts for `completions` are rendered with, in hex;
            None for `chat/completions`.
    """

    base_url: str
    model: str
    endpoint: str = CHAT
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    omit: tuple[str, ...] = ()
    max_tokens_key: str = "max_tokens"
    top_logprobs: int = 0
    max_new_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0
    answers_per_prompt: int = 1
    template: str | None = None

    @classmethod
    def of(cls, config: Config, *, template: str | None = None) -> Self:
        """The settings of a config.

        Args:
            config: its sections `api` and `teacher` are read.
            template: as the attribute.

        Raises:
            ConfigError: `api.base_url` or `api.model` is not set, or `api.extra_body` asks for a stream.
        """
        api, teacher = config.api, config.teacher
        for key, value in (("base_url", api.base_url), ("model", api.model)):
            if value is None:
                raise ConfigError(f"api.{key}: required to ask a teacher behind an API; set it, got None")
        if (api.extra_body or {}).get("stream"):
            raise ConfigError("api.extra_body.stream: must be false: kdfast reads whole answers, got true")
        return cls(
            base_url=api.base_url or "",
            model=api.model or "",
            endpoint=api.endpoint,
            query=api.query or {},
            headers=tuple(sorted(name.lower() for name in api.headers_from_env or {})),
            extra_body=api.extra_body or {},
            omit=api.omit,
            max_tokens_key=api.max_tokens_key,
            top_logprobs=api.top_logprobs,
            max_new_tokens=teacher.max_new_tokens,
            temperature=teacher.temperature,
            seed=teacher.seed,
            answers_per_prompt=teacher.answers_per_prompt,
            template=None if api.endpoint == CHAT else template,
        )


def request_of(
    prompt: Prompt, sample: int, settings: RequestSettings, *, text: str | None = None
) -> tuple[Request, ToolNames]:
    """The request for one answer to a prompt, and the mapping of its tools' names.

    `extra_body` replaces whole keys of the body: an object in it is not merged with one of the same key. Then the keys
    of `omit` go. `tool_choice` is "auto" unless the record says another, and is sent only beside tools.

    Args:
        prompt: the prompt. With `chat/completions` a prompt that is a text becomes one user's message: the server puts
            its own chat template around it. A text that is rendered already belongs to `completions`.
        sample: which of several answers it is, from 0.
        settings: what the config says.
        text: the rendered prompt; for `completions` only, and needed there.

    Raises:
        DataError: the prompt cannot be sent; with file and line.
        ValueError: `text` is missing for `completions`.

    Example:
        >>> from pathlib import Path
        >>> settings = RequestSettings(base_url="http://127.0.0.1:8080/v1/", model="m", max_new_tokens=9)
        >>> prompt = Prompt(source=Path("p.jsonl"), line=1, index=0, prompt="Hi")
        >>> request, _ = request_of(prompt, 0, settings)
        >>> request.endpoint
        'http://127.0.0.1:8080/v1/chat/completions'
        >>> request.body
        {'model': 'm', 'messages': [{'role': 'user', 'content': 'Hi'}], 'max_tokens': 9, 'temperature': 0.0}
    """
    body: Json = {"model": settings.model}
    if settings.endpoint == CHAT:
        body |= _conversation(prompt)
    elif text is None:
        raise ValueError(f"give the rendered prompt for the endpoint {settings.endpoint!r}")
    else:
        body["prompt"] = text
    body |= _sampling(sample, settings)
    body |= settings.extra_body
    body = {key: value for key, value in body.items() if key not in settings.omit}
    template = None if settings.endpoint == CHAT else settings.template
    context = {"query": dict(settings.query), "headers": list(settings.headers), "template": template}
    try:
        names = ToolNames.of_request(body)
        request = Request(
            endpoint=f"{settings.base_url.rstrip('/')}/{settings.endpoint}",
            body=names.to_request(body),
            sample=sample,
            order=prompt.index * settings.answers_per_prompt + sample,
            context={key: value for key, value in context.items() if value},
        )
    except ValueError as error:  # a tool without a name, half of a character
        raise DataError(f"the prompt cannot be sent: {error}", str(prompt.source), prompt.line) from None
    return request, names


def worst_input_tokens(request: Request) -> int:
    """The most tokens that a request's prompt can have, for any byte-level tokenizer.

    It is the bytes of the body as JSON, as a chat template writes it, and some more for each message, each tool and the
    template itself. A server that adds a long text of its own may exceed it.

    Args:
        request: the request.

    Example:
        >>> worst_input_tokens(Request("http://localhost/v1/completions", {"prompt": "naïve"}))
        70
    """
    parts = [part for key in ("messages", "tools") for part in request.body.get(key) or ()]
    size = sum(_bytes(value) for value in request.body.values())
    return size + _TOKENS_A_PART * len(parts) + _TOKENS_A_REQUEST


def worst_output_tokens(request: Request, settings: RequestSettings) -> int:
    """The most tokens that all choices of an answer can have: what `extra_body` says counts, too.

    Args:
        request: the request.
        settings: what it was made with.

    Raises:
        ConfigError: the request has no limit, so that its cost would have none.

    Example:
        >>> settings = RequestSettings(base_url="http://localhost/v1", model="m")
        >>> worst_output_tokens(Request("http://localhost/v1/completions", {"max_tokens": 9, "n": 2}), settings)
        18
    """
    body = request.body
    limits = [_whole(body.get(key)) for key in (settings.max_tokens_key, *_LIMITS)]
    if not any(limits):
        raise ConfigError(
            f"api.omit: leave {settings.max_tokens_key} in the request (api.max_tokens_key renames it): without a limit"
            f" an answer has no largest cost, got {list(settings.omit)}"
        )
    return max(limits) * max(1, *(_whole(body.get(key)) for key in ("n", "best_of")))


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _conversation(prompt: Prompt) -> Json:
    if prompt.messages is None:
        body: Json = {"messages": [{"role": "user", "content": prompt.prompt or ""}]}
    else:
        body = {"messages": sent_messages(prompt)}
    if prompt.tools:
        body["tools"] = sent_tools(prompt.tools)
        body["tool_choice"] = "auto" if prompt.tool_choice is None else sent_choice(prompt.tool_choice)
    if prompt.tools and prompt.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = prompt.parallel_tool_calls
    return body


def _sampling(sample: int, settings: RequestSettings) -> Json:
    body: Json = {settings.max_tokens_key: settings.max_new_tokens, "temperature": settings.temperature}
    if settings.temperature > 0:
        body["seed"] = settings.seed + sample
    if settings.top_logprobs and settings.endpoint == CHAT:
        body |= {"logprobs": True, "top_logprobs": settings.top_logprobs}
    elif settings.top_logprobs:
        body["logprobs"] = settings.top_logprobs
    return body


def _bytes(value: Any) -> int:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return len(text.encode("utf-8"))
