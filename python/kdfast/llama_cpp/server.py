"""llama.cpp's own HTTP server, of the package xllamacpp, in a process of its own.

It is asked for what only it knows: the prompt that it makes of messages and tools, and the calls that its parser finds.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from kdfast.errors import DataError
from kdfast.llama_cpp.library import omp_threads, require_llama_cpp, usable_cores
from kdfast.llama_cpp.loading import check_gguf
from kdfast.llama_cpp.process import ServerProcess, server_process

_START_S = 300.0
_ANSWER_S = 600.0

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback needs no proxy

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ChatAnswer:
    """The server's answer to a conversation.

    Attributes:
        content: text beside the calls; empty or None = there is none.
        tool_calls: the calls that its parser found: name, and arguments as JSON text.
        finish_reason: "tool_calls", "stop" (an end token), "length", or "error".
        raw_text: what the model wrote, before the parser; without its end token. None = the server does not say.
        tokens: the ids that the model wrote, its end token too. None = the server does not say.
        error: why the server gave no answer, in its words; None = it gave one.
    """

    content: str | None = None
    tool_calls: tuple[tuple[str, str], ...] = ()
    finish_reason: str
    raw_text: str | None = None
    tokens: tuple[int, ...] | None = None
    error: str | None = None


class LlamaCppServer:
    """A server that runs. `serve` starts it.

    Attributes:
        url: its address, without a path; `chat/completions` is below `{url}/v1`.
    """

    def __init__(self, process: ServerProcess) -> None:
        self.url = process.url
        self._process = process
        self._source = str(process.gguf)

    def apply_template(
        self,
        messages: Sequence[Json],
        tools: Sequence[Json] | None = None,
        template_kwargs: Json | None = None,
    ) -> str:
        """The prompt that the server makes of a conversation, up to the begin of the model's turn.

        Do not end with a message of the assistant: the server continues it instead, or refuses it if it has calls.

        Args:
            messages: as in the chat API.
            tools: as in the chat API.
            template_kwargs: further variables of the chat template.

        Raises:
            DataError: the server refuses, in its words; or it ended.
        """
        reply = self._post("/apply-template", _conversation(messages, tools, template_kwargs))
        return str(self._value(reply, "prompt", str))

    def tokenize(self, text: str) -> list[int]:
        """The ids that the server makes of a text. Special tokens in it become their ids; nothing is added.

        Raises:
            DataError: the server refuses, in its words; or it ended.
        """
        reply = self._post("/tokenize", {"content": text, "parse_special": True, "add_special": False})
        return list(self._value(reply, "tokens", list))

    def chat(
        self,
        messages: Sequence[Json],
        tools: Sequence[Json] | None = None,
        *,
        max_tokens: int,
        template_kwargs: Json | None = None,
    ) -> ChatAnswer:
        """The greedy answer to a conversation, and the calls that the server's parser finds in it.

        With tools the server may call several at once. Once a call has begun it holds the model to the tools' schemas
        by a grammar, so that an answer can differ from the same model's without a server.

        Args:
            messages: as in the chat API.
            tools: as in the chat API; the model chooses.
            max_tokens: the most tokens of the answer.
            template_kwargs: further variables of the chat template.

        Returns:
            The answer; one that the server refuses or cannot parse has `error`.

        Raises:
            DataError: the server ended, or answers something else than its API says.
        """
        # What is in the server's cache is not computed again, so that the rest is rounded in another way.
        body = _conversation(messages, tools, template_kwargs) | {"temperature": 0, "cache_prompt": False}
        # `verbose` gives what the model wrote before it is parsed.
        body |= {"max_tokens": max_tokens, "return_tokens": True, "verbose": True}
        if tools:
            body |= {"tool_choice": "auto", "parallel_tool_calls": True}
        reply, refused = self._send("/v1/chat/completions", body)
        return self._answer(reply) if refused is None else ChatAnswer(finish_reason="error", error=refused)

    def wait_until_ready(self) -> None:
        """Waits while the server loads the model: until then it answers 503.

        Raises:
            DataError: it ended, or is not ready after five minutes.
        """
        end = time.monotonic() + _START_S
        while True:
            try:
                with _OPENER.open(f"{self.url}/health", timeout=_START_S):
                    return
            except OSError as error:
                if time.monotonic() > end or self._process.ended():
                    raise self._process.gone(error) from None
                time.sleep(0.1)

    def _answer(self, reply: Json) -> ChatAnswer:
        try:
            choice = reply["choices"][0]
            calls = [call["function"] for call in choice["message"].get("tool_calls") or ()]
            raw = reply.get("__verbose") or {}
            tokens = raw.get("tokens")
            return ChatAnswer(
                content=choice["message"].get("content"),
                tool_calls=tuple((str(call["name"]), str(call["arguments"])) for call in calls),
                finish_reason=str(choice["finish_reason"]),
                raw_text=raw.get("content"),
                tokens=None if tokens is None else tuple(tokens),
            )
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise self._strange(reply, f"{type(error).__name__} {error}") from None

    def _post(self, path: str, body: Json) -> Json:
        """The reply to a request that must not be refused."""
        reply, refused = self._send(path, body)
        if refused is not None:
            raise DataError(f"llama.cpp's server refuses {path}: {refused}", source=self._source)
        return reply

    def _send(self, path: str, body: Json) -> tuple[Json, str | None]:
        """Sends a request; the reply, and why the server refuses it (None = it does not).

        Raises:
            DataError: the server ended, or answers no JSON object.
        """
        request = urllib.request.Request(  # noqa: S310 - loopback
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        self._process.mark()
        try:
            with _OPENER.open(request, timeout=_ANSWER_S) as answer:
                data = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return {}, _words(error)
        except (OSError, HTTPException) as error:  # a connection that is refused or ends, a time limit
            raise self._process.gone(error) from None
        try:
            reply = json.loads(data)
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise self._strange(data[:200], "no JSON object")
        return reply, None

    def _value(self, reply: Json, key: str, kind: type) -> Any:
        value = reply.get(key)
        if not isinstance(value, kind):
            raise self._strange(reply, f"no {key}")
        return value

    def _strange(self, reply: object, what: str) -> DataError:
        return DataError(
            f"llama.cpp's server answers otherwise than kdfast knows it ({what}); "
            f"take another version of xllamacpp: {str(reply)[:200]}",
            source=self._source,
        )


@contextmanager
def serve(gguf: Path, *, context: int = 4096, threads: int = 0) -> Iterator[LlamaCppServer]:
    """Serves a model on loopback, one conversation at a time, as long as the `with` lasts.

    The server's process ends with it, and also when this process ends in any other way.

    Args:
        gguf: the model.
        context: the most tokens of a prompt and its answer. The server takes at most what the file says that the model
            was made for.
        threads: threads that compute; 0 = OMP_NUM_THREADS, else one for each usable core.

    Raises:
        ConfigError: xllamacpp is not installed.
        DataError: the file is missing or no GGUF, or the server does not start; with what it wrote.
        ValueError: `context` is not positive, or `threads` is negative.
    """
    if context <= 0 or threads < 0:
        raise ValueError(
            f"context must be positive and threads must not be negative, got {context} and {threads}"
        )
    require_llama_cpp()
    check_gguf(gguf)
    with server_process(gguf, context, threads or omp_threads() or usable_cores()) as process:
        server = LlamaCppServer(process)
        server.wait_until_ready()
        yield server


def _conversation(
    messages: Sequence[Json], tools: Sequence[Json] | None, template_kwargs: Json | None
) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": list(messages)}
    if tools:
        body["tools"] = list(tools)
    if template_kwargs:
        body["chat_template_kwargs"] = dict(template_kwargs)
    return body


def _words(error: urllib.error.HTTPError) -> str:
    """What the server says about a request that it refuses."""
    text = error.read().decode(errors="replace")
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{text[:200]!r} (status {error.code})"
