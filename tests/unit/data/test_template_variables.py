"""Variables of a chat template: they render as arguments of apply_chat_template would, and typos are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from kdfast import _rust
from kdfast.data import load_template
from kdfast.data.template_variables import check_variables, with_variables
from kdfast.errors import ConfigError

QWEN = (
    "{%- for m in messages %}\n{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:"
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}{% endif %}"
)
MESSAGES = [{"role": "user", "content": "hi"}]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def render(source: str, variables: dict[str, Any]) -> str:
    template = _rust.ChatTemplate(with_variables(source, variables))
    return template.render(json.dumps(MESSAGES), None, True)


def by_transformers(source: str, **variables: Any) -> str:
    (text,), _ = render_jinja_template(
        [MESSAGES], chat_template=source, add_generation_prompt=True, **variables
    )
    return str(text)


@pytest.mark.parametrize("value", [False, True, None, 0])
def test_qwens_switch(value: Any) -> None:
    text = render(QWEN, {"enable_thinking": value})
    assert text == by_transformers(QWEN, enable_thinking=value)
    assert text.endswith("<think></think>") == (value is False)


@pytest.mark.parametrize(
    "source",
    ["\n{{ x }}", "  {% if x %}a{% endif %}\n b", "{{ x }}\n", "   {{ x }}", "{%- if x %}\n y{% endif %}"],
)
def test_the_lines_of_the_source_keep_their_white_space(source: str) -> None:
    assert render(source, {"x": 1}) == by_transformers(source, x=1)
    assert by_transformers(with_variables(source, {"x": 1})) == by_transformers(source, x=1)


@given(value=VALUES)
def test_any_json_value_arrives_as_it_was(value: Any) -> None:
    source = "{{ x | tojson }}"
    assert json.loads(render(source, {"x": value})) == value
    assert json.loads(by_transformers(with_variables(source, {"x": value}))) == value


def test_another_value_may_be_handed_over() -> None:
    assert by_transformers(with_variables("{{ x }}", {"x": 1}), x=2) == "2"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("enable_thinkng", "reads no such variable"),
        ("messages", "this name is taken"),
        ("bos_token", "this name is taken"),
        ("a b", "letters, digits and underscores"),
        ("", "letters, digits and underscores"),
    ],
)
def test_names_that_would_do_nothing_are_refused(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data.template_kwargs: .*{says}.*, got {name!r}$"):
        check_variables({name: 1}, {"own": QWEN + "{{ bos_token }}"}, {"bos_token": "<s>"})


def test_a_template_without_the_variable_is_not_taken_silently(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the chat template \(hermes\) reads no such variable"):
        load_template("hermes", tmp_path, {"enable_thinking": False})


def test_both_texts_get_the_variables(tmp_path: Path) -> None:
    tools = "{{ tools | tojson }}{{ x }}"
    settings = {
        "chat_template": [{"name": "default", "template": QWEN}, {"name": "tool_use", "template": tools}]
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    template = load_template("tokenizer", tmp_path, {"x": 7, "enable_thinking": False})
    compiled = template.compile()
    assert compiled.render(json.dumps(MESSAGES), None, True).endswith("<think></think>")
    assert compiled.render(json.dumps(MESSAGES), '[{"name": "f"}]', True).endswith("7")
