"""The control tokens that a chat template writes, for a tokenizer that is made for it. No torch in here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from kdfast import _rust
from kdfast.data.template import Template
from kdfast.errors import ConfigError, DataError

_BOS, _EOS = "<|begin_of_text|>", "<|end_of_text|>"
"""What a template writes for `bos_token` and `eos_token`."""
_PADS = ("<|endoftext|>", "<|pad|>")

_CONTROL = re.compile(
    r"<\|[^\s<>|]+\|>|<\uff5c[^\s<>\uff5c]+\uff5c>|\[/?[A-Z][A-Z_]+\]|</?s>|<(?:start|end)_of_turn>"
)
_MARK = re.compile(r"<(/?)([a-z][a-z0-9_]*)>")

_NAME, _ARGUMENTS = "kdfast_sentinel_name", {"kdfast_sentinel_key": 1}
_CALL = re.compile(rf"(.*){_NAME}(.*)\{{\s*\"kdfast_sentinel_key\"\s*:\s*1\s*\}}(.*)", re.DOTALL)
_ANSWER = "kdfast-sentinel-answer"
_QUESTION = {"role": "user", "content": "a question"}
_SAID = {"role": "assistant", "content": _ANSWER}
_TOOL = {"name": "probe", "description": "A probe.", "parameters": {"type": "object", "properties": {}}}


@dataclass(frozen=True, kw_only=True)
class ControlTokens:
    """The tokens of a chat template.

    Attributes:
        special: the control tokens, which are no part of what anyone says; `pad` is the first.
        marks: marks inside a turn, such as <tool_call>: tokens too, but a decoder that skips special ones keeps them.
            With frames, these come first.
        bos: the token that begins a conversation.
        eos: the token that ends an answer.
        pad: the token that fills a row up; the template never writes it.
    """

    special: tuple[str, ...]
    marks: tuple[str, ...]
    bos: str
    eos: str
    pad: str

    @property
    def all(self) -> tuple[str, ...]:
        """All of them, special ones first."""
        return (*self.special, *self.marks)

    def named_in(self, template: Template) -> Template:
        """The template with these tokens under their names."""
        others = {"pad_token": self.pad, "unk_token": self.pad}
        return replace(template, bos_token=self.bos, eos_token=self.eos, other_tokens=others)


def control_tokens(
    template: Template, *, call_frames: bool = False, name: str = "--template"
) -> ControlTokens:
    """Finds the control tokens of a template in what it writes.

    Marks count where the template writes both the opening and the closing one.

    Args:
        template: the template; the named tokens that it brings along are not used.
        call_frames: make one mark of each text that the template writes around the name and the arguments of a call.
        name: the option that named it, for messages.

    Raises:
        ConfigError: it ends an answer without a control token, leaves the answer out, or writes no call with a name
            before its arguments, though frames are wanted.
        DataError: it cannot render a question and its answer.

    Example:
        >>> turn = "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
        >>> found = control_tokens(Template(turn))
        >>> found.special, found.eos
        (('<|endoftext|>', '<|im_start|>', '<|im_end|>'), '<|im_end|>')
    """
    compiled = replace(template, bos_token=_BOS, eos_token=_EOS).compile()
    whole = compiled.render(json.dumps([_QUESTION, _SAID]), None, False)
    turn_end = _CONTROL.search(whole.rpartition(_ANSWER)[2])
    if _ANSWER not in whole or turn_end is None:
        problem = "leaves out what an assistant's message says"
        if _ANSWER in whole:
            problem = "ends an answer without a control token such as <|im_end|>, so a model could not learn to stop"
        raise ConfigError(f"{name}: the chat template {problem}; mend it, or take --template hermes")
    texts = [whole, *_texts(compiled)]
    written = list(dict.fromkeys(token for text in texts for token in _CONTROL.findall(text)))
    pad = next(one for one in (*_PADS, "<|kdfast_pad|>") if one not in written)
    first = _CONTROL.match(whole)
    return ControlTokens(
        special=(pad, *written),
        marks=(*(_frames(compiled, name) if call_frames else ()), *_marks(texts)),
        bos=_BOS if _BOS in written else first[0] if first else pad,
        eos=_EOS if _EOS in written else turn_end[0],
        pad=pad,
    )


def _marks(texts: list[str]) -> tuple[str, ...]:
    """The marks that are written both as <name> and as </name>, in the order in which they first are."""
    found = dict.fromkeys((name, slash) for text in texts for slash, name in _MARK.findall(text))
    pairs = dict.fromkeys(name for name, _ in found if (name, "") in found and (name, "/") in found)
    return tuple(mark for name in pairs for mark in (f"<{name}>", f"</{name}>"))


def _frames(template: _rust.ChatTemplate, name: str) -> tuple[str, ...]:
    """What is written before a call's name, between name and arguments, and after these, without control tokens."""
    for arguments in (_ARGUMENTS, json.dumps(_ARGUMENTS)):
        call = {"id": "call00001", "type": "function", "function": {"name": _NAME, "arguments": arguments}}
        calling = {"role": "assistant", "content": "", "tool_calls": [call]}
        try:
            prompt = template.render(json.dumps([_QUESTION]), None, True)
            whole = template.render(json.dumps([_QUESTION, calling]), None, False)
        except DataError:
            continue
        found = _CALL.fullmatch(whole.removeprefix(prompt))
        if found is not None:
            parts = [part for text in found.groups() for part in _CONTROL.split(text)]
            return tuple(dict.fromkeys(part for part in parts if len(part.strip()) > 1))
    raise ConfigError(
        f"{name}: the chat template writes no call with its name before its arguments, so there are no frames; leave "
        "--call-frames out"
    )


def _texts(template: _rust.ChatTemplate) -> Iterator[str]:
    """What the template writes for conversations of every kind; those that it refuses are left out."""
    tools = json.dumps([{"type": "function", "function": _TOOL}])
    for messages in _conversations():
        for shown in (None, tools):
            for prompt_only in (False, True):
                try:
                    yield template.render(json.dumps(messages), shown, prompt_only)
                except DataError:
                    continue


def _conversations() -> Iterator[list[dict[str, Any]]]:
    system = {"role": "system", "content": "an instruction"}
    told = {"role": "tool", "tool_call_id": "call00001", "name": "probe", "content": "a result"}
    yield [_QUESTION]
    yield [system, _QUESTION, _SAID, _QUESTION]
    # Some templates take the arguments as an object, others as its text.
    for arguments in ({"place": "here"}, '{"place": "here"}'):
        function = {"name": "probe", "arguments": arguments}
        call = {"id": "call00001", "type": "function", "function": function}
        calling = {"role": "assistant", "content": "", "tool_calls": [call]}
        yield [_QUESTION, calling]
        yield [_QUESTION, calling, told]
        yield [system, _QUESTION, calling, told, _SAID]
