"""In which format a chat template writes tool calls, and whether its answers begin inside a thinking block."""

from __future__ import annotations

import json
from typing import Any

from kdfast import _rust
from kdfast.config.choices import Thinking
from kdfast.errors import DataError
from kdfast.scoring import thinking_after

OPENINGS: dict[str, tuple[str, ...]] = {
    "hermes": ("<tool_call>",),
    "granite": ("<tool_call>",),
    "mistral": ("[TOOL_CALLS]",),
    "llama3": ("<|python_tag|>", "{"),
    "fenced": ("```",),
    "array": ("[",),
    "object": ("{",),
    "openai": ("{", "["),
}
"""Format -> the texts with which a call may begin (docs/tool_calls.md)."""

_NAME, _ARGUMENTS = "kdfast_probe", {"city": "Oslo", "days": 3}
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "A probe.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "A city."},
                "days": {"type": "integer", "description": "A count."},
            },
            "required": ["city"],
        },
    },
}


def call_format(template: _rust.ChatTemplate) -> str | None:
    """The first format in which a call that the template writes is found again, unchanged; None = in none.

    Args:
        template: a compiled chat template.

    Example:
        >>> source = "{% for m in messages %}{% for c in m.tool_calls or [] %}[TOOL_CALLS]{{ [c.function] | tojson }}"
        >>> call_format(_rust.ChatTemplate(source + "{% endfor %}{% endfor %}"))
        'mistral'
    """
    texts = [
        text for text in (_answer(template, _ARGUMENTS), _answer(template, json.dumps(_ARGUMENTS))) if text
    ]
    for name in _rust.tool_call_formats():
        for text in texts:
            found = _rust.find_tool_calls(text, [name])
            if [(call.name, call.arguments) for call in found] == [(_NAME, _ARGUMENTS)]:
                return name
    return None


def template_thinking(template: _rust.ChatTemplate) -> Thinking:
    r"""Whether answers begin inside a thinking block: "open" if the template's generation prompt opens one.

    Args:
        template: a compiled chat template.

    Example:
        >>> source = "{{ messages[0].content }}{% if add_generation_prompt %}<think>\n{% endif %}"
        >>> template_thinking(_rust.ChatTemplate(source))
        'open'
    """
    question = json.dumps([{"role": "user", "content": "Is it raining?"}])
    try:
        return thinking_after(template.render(question, None, True))
    except DataError:
        return "closed"  # it refuses such messages: each prompt is looked at when it is used


def _answer(template: _rust.ChatTemplate, arguments: Any) -> str | None:
    """What the template writes for an answer with one call; None if it refuses such messages."""
    question = {"role": "user", "content": "Is it raining?"}
    call = {"id": "call00001", "type": "function", "function": {"name": _NAME, "arguments": arguments}}
    answer = {"role": "assistant", "content": "", "tool_calls": [call]}
    try:
        prompt = template.render(json.dumps([question]), json.dumps([_TOOL]), True)
        whole = template.render(json.dumps([question, answer]), json.dumps([_TOOL]), False)
    except DataError:
        return None
    # A template with a thinking block in its generation prompt often writes none in a turn that has none.
    closing = _rust.thinking_closing(prompt)
    return whole.removeprefix(prompt).split(closing, 1)[-1] if closing else whole.removeprefix(prompt)
