"""The control tokens of a chat template are those that it writes."""

from __future__ import annotations

from pathlib import Path

import chat_templates
import pytest

from kdfast.data.control_tokens import control_tokens
from kdfast.data.template import Template, load_template
from kdfast.errors import ConfigError, DataError

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
CALLS = ("<tool_call>", "</tool_call>")


@pytest.mark.parametrize(
    ("show_tools", "more"), [(True, ("<tools>", "</tools>")), (False, ())], ids=["shown", "hidden"]
)
def test_hermes(tmp_path: Path, show_tools: bool, more: tuple[str, ...]) -> None:
    found = control_tokens(load_template("hermes", tmp_path, show_tools=show_tools))
    assert found.special == ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    assert sorted(found.marks) == sorted((*more, *CALLS, "<tool_response>", "</tool_response>"))
    assert (found.bos, found.eos, found.pad) == ("<|im_start|>", "<|im_end|>", "<|endoftext|>")


def test_named_tokens_of_the_template() -> None:
    found = control_tokens(Template(chat_templates.LOOPS.replace(" if not loop.last", "")))
    assert (found.bos, found.eos) == ("<|begin_of_text|>", "<|end_of_text|>")
    assert set(found.special) >= {"<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"}
    named = found.named_in(Template("{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ unk_token }}"))
    assert named.compile().render("[]") == "<|begin_of_text|><|end_of_text|><|endoftext|><|endoftext|>"


def test_a_template_that_writes_the_padding() -> None:
    found = control_tokens(Template(CHATML.replace("<|im_end|>", "<|endoftext|>")))
    assert (found.eos, found.pad) == ("<|endoftext|>", "<|pad|>")
    assert found.special == ("<|pad|>", "<|im_start|>", "<|endoftext|>")


@pytest.mark.parametrize(
    ("turn", "special"),
    [
        ("[INST]{c}</s>", ("[INST]", "</s>")),
        (
            "<start_of_turn>{r}\n{c}<end_of_turn>\n",
            ("<start_of_turn>", "<end_of_turn>"),
        ),
        (
            "<\uff5cUser\uff5c>{c}<\uff5cend\u2581of\uff5c>",
            ("<\uff5cUser\uff5c>", "<\uff5cend\u2581of\uff5c>"),
        ),
    ],
)
def test_other_kinds(turn: str, special: tuple[str, ...]) -> None:
    body = turn.replace("{c}", "{{ m.content }}").replace("{r}", "{{ m.role }}")
    found = control_tokens(Template("{% for m in messages %}" + body + "{% endfor %}"))
    assert found.special == ("<|endoftext|>", *special)
    assert (found.bos, found.eos, found.marks) == (special[0], special[-1], ())


def test_a_mark_without_its_closing_one_is_text() -> None:
    assert control_tokens(Template(CHATML + "<think>")).marks == ()
    assert control_tokens(Template(CHATML + "<think></think>")).marks == ("<think>", "</think>")


def test_templates_that_cannot_be_used() -> None:
    turn = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    with pytest.raises(ConfigError, match=r"without a control token such as .* take --template hermes"):
        control_tokens(Template(turn))
    with pytest.raises(ConfigError, match="--template: the chat template leaves out what an assistant's"):
        control_tokens(Template("<|im_start|><|im_end|>"))
    with pytest.raises(DataError, match="no"):
        control_tokens(Template("{{ raise_exception('no') }}"))


def test_frames_are_what_is_around_every_call(tmp_path: Path) -> None:
    found = control_tokens(load_template("hermes", tmp_path, show_tools=False), call_frames=True)
    assert found.marks[:3] == ('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>")
    assert set(CALLS) <= set(found.marks[3:])
    assert found.special == ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def test_a_frame_holds_no_control_token() -> None:
    """A control token inside is one already: what is left of the frame is the text beside it."""
    call = '[TOOL_CALLS]{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    turn = "[INST]{{ m.content }}{% for c in m.tool_calls or [] %}" + call + "{% endfor %}</s>"
    found = control_tokens(Template("{% for m in messages %}" + turn + "{% endfor %}"), call_frames=True)
    assert "[TOOL_CALLS]" in found.special
    assert found.marks == ('{"name": "', '", "arguments": ')


def test_a_template_without_calls_has_no_frames() -> None:
    with pytest.raises(
        ConfigError, match=r"writes no call with its name before its arguments.*--call-frames"
    ):
        control_tokens(Template(CHATML), call_frames=True)
