"""`data.show_tools: false`: a template that shows no tools wherever it is rendered, and rows that keep theirs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from chat_templates import MACROS
from commands import run_command
from tiny import CHATML, write_tokenizer
from tiny_run import TOOL, record
from transformers import AutoTokenizer

from kdfast.config import DataConfig
from kdfast.data import KDDataset, Template, load_template
from kdfast.data.repeats import shared_prompts
from kdfast.data.token_rows import Reader
from kdfast.errors import ConfigError, DataError

HIDE = "{% set tools = none %}\n"
WITH_CALLS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}<tool_call>\n"
    '{"name": {{ call.function.name | tojson }}, "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
)
IN_LOOP = "{% for message in messages %}{% for tool in tools or [] %}[{{ tool | tojson }}]{% endfor %}"
IN_LOOP += "{{ message.content }}{% if thinks %}<think>{% endif %}{% endfor %}"
SOURCES = {
    "in a loop": IN_LOOP,
    "with macros": MACROS,
    "in a macro": "{% macro shown() %}{{ tools | tojson if tools else 'none' }}{% endmacro %}{{ shown() }}!",
    "that begins with a blank line": "\n  {%- if tools %}{{ tools | tojson }}{% endif %}\n{{ messages[0].content }}\n",
    "that counts": "{{ tools | length if tools is not none else 0 }}",
    "whose default is none": "{% if tools is not defined %}{% set tools = none %}{% endif %}{{ tools | tojson }}",
}
MESSAGES = [{"role": "user", "content": "Is it raining in Oslo?"}]
QUESTION = json.dumps(MESSAGES)
TOOLS = json.dumps([TOOL])


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path / "tokenizer")


def set_template(tokenizer: Path, source: Any) -> None:
    path = tokenizer / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": source}))


def assert_hides(template: Template, source: str) -> None:
    """With tools or without, it writes what `source` writes without; so does transformers."""
    assert template.hides_tools
    assert template.tool_use is None
    mine = template.compile()
    expected = Template(source, template.bos_token, template.eos_token, template.other_tokens).compile()
    for prompt_only in (False, True):
        bare = expected.render(QUESTION, None, prompt_only)
        assert mine.render(QUESTION, TOOLS, prompt_only) == mine.render(QUESTION, None, prompt_only) == bare


def test_kdfasts_own(tokenizer: Path) -> None:
    shown, hidden = load_template("hermes", tokenizer), load_template("hermes", tokenizer, show_tools=False)
    assert not shown.hides_tools
    assert hidden.source == HIDE + shown.source
    assert_hides(hidden, shown.source)
    assert hidden.compile().render(QUESTION, TOOLS, True) == (
        "<|im_start|>user\nIs it raining in Oslo?<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_the_tokenizers_own_and_a_file(tokenizer: Path, tmp_path: Path, source: str) -> None:
    set_template(tokenizer, source)
    assert_hides(load_template("tokenizer", tokenizer, show_tools=False), source)
    (tmp_path / "own.jinja").write_text(source)
    assert_hides(load_template(str(tmp_path / "own.jinja"), tokenizer, show_tools=False), source)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_transformers_renders_it_the_same(tokenizer: Path, source: str) -> None:
    """Whether it is handed tools or not."""
    set_template(tokenizer, source)
    hidden = load_template("tokenizer", tokenizer, show_tools=False)
    set_template(tokenizer, hidden.source)
    theirs = AutoTokenizer.from_pretrained(tokenizer)
    bare = theirs.apply_chat_template(MESSAGES, chat_template=source, tokenize=False)
    for tools in (None, [TOOL]):
        assert theirs.apply_chat_template(MESSAGES, tools=tools, tokenize=False) == bare
    assert hidden.compile().render(QUESTION, TOOLS) == bare


def test_a_template_for_tools_is_of_no_use(tokenizer: Path) -> None:
    named = [
        {"name": "default", "template": IN_LOOP},
        {"name": "tool_use", "template": SOURCES["that counts"]},
    ]
    set_template(tokenizer, named)
    assert_hides(load_template("tokenizer", tokenizer, show_tools=False), IN_LOOP)
    set_template(tokenizer, named[1:])
    assert_hides(load_template("tokenizer", tokenizer, show_tools=False), SOURCES["that counts"])


def test_its_variables_are_kept(tokenizer: Path) -> None:
    """A student's template stays hidden, whatever variables come before it."""
    set_template(tokenizer, IN_LOOP)
    once = load_template("tokenizer", tokenizer, {"thinks": True}, show_tools=False)
    assert once.hides_tools
    assert once.compile().render(QUESTION, TOOLS) == "Is it raining in Oslo?<think>"
    set_template(tokenizer, once.source)
    twice = load_template("tokenizer", tokenizer, {"thinks": False})
    assert twice.hides_tools
    # the line before it gives the first default
    assert twice.compile().render(QUESTION, TOOLS) == "Is it raining in Oslo?"


def test_a_variable_of_the_template_that_is_not_used_is_refused(tokenizer: Path) -> None:
    named = [{"name": "default", "template": WITH_CALLS}, {"name": "tool_use", "template": IN_LOOP}]
    set_template(tokenizer, named)
    assert load_template("tokenizer", tokenizer, {"thinks": True}).tool_use
    with pytest.raises(ConfigError, match="reads no such variable"):
        load_template("tokenizer", tokenizer, {"thinks": True}, show_tools=False)


@pytest.mark.parametrize("show_tools", [True, False])
@pytest.mark.parametrize("name", ["tokenizer", "auto"])
def test_what_is_hidden_already_stays_equal(tokenizer: Path, name: str, show_tools: bool) -> None:
    hidden = load_template("hermes", tokenizer, show_tools=False)
    set_template(tokenizer, hidden.source)
    assert load_template(name, tokenizer, show_tools=show_tools) == hidden


def test_a_template_of_others_that_says_the_same_under_a_condition_hides_nothing(tokenizer: Path) -> None:
    """Llama 3's and others say that there are no tools if none are given."""
    for condition in (
        "{% if tools is not defined %}{% set tools = none %}{% endif %}\n",
        "{% if not tools is defined %}\n{% set tools = none %}\n{% endif %}\n",
        "{% if tools is not defined %}\n{% set tools = none %}\n{% endif %}\n",
    ):
        set_template(tokenizer, condition + IN_LOOP)
        shown = load_template("tokenizer", tokenizer)
        assert not shown.hides_tools
        assert "get_weather" in shown.compile().render(QUESTION, TOOLS)
        assert_hides(load_template("tokenizer", tokenizer, show_tools=False), IN_LOOP)


def test_a_template_that_ignores_tools_is_accepted(tokenizer: Path) -> None:
    set_template(tokenizer, WITH_CALLS)
    with pytest.raises(
        DataError, match=r"ignores tools.*; if the tools are baked in.*data\.show_tools: false"
    ):
        load_template("tokenizer", tokenizer)
    with pytest.raises(DataError, match="ignores tools") as error:
        load_template("tokenizer", tokenizer, key="--template")
    assert "data.show_tools" not in error.value.message
    assert "ignores tools" in load_template("auto", tokenizer).note
    for name in ("tokenizer", "auto"):
        hidden = load_template(name, tokenizer, show_tools=False)
        assert hidden.source == HIDE + WITH_CALLS
        assert hidden.note == ""
        assert_hides(hidden, WITH_CALLS)


def test_auto_still_wants_calls_that_are_found_again(tokenizer: Path) -> None:
    set_template(tokenizer, CHATML)
    found = load_template("auto", tokenizer, show_tools=False)
    assert "writes calls in no format" in found.note
    assert found.source == load_template("hermes", tokenizer, show_tools=False).source


def rows_of(
    tokenizer: Path, records: list[dict[str, Any]], name: str = "train.jsonl", **keys: Any
) -> KDDataset:
    file = tokenizer.parent / name
    file.write_text("".join(json.dumps(one) + "\n" for one in records))
    return KDDataset(file, tokenizer, shapes=[512], template="hermes", **{"show_tools": False} | keys)


def test_rows_show_no_tool_and_keep_them(tokenizer: Path) -> None:
    rows = rows_of(tokenizer, [record(1)])
    shown = rows_of(tokenizer, [record(1)], show_tools=True)
    ids = rows.store.prompt_ids(0).tolist()
    question = record(1)["messages"][0]["content"]
    assert rows.tokenizer.decode(ids) == (f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")
    assert len(ids) < len(shown.store.prompt_ids(0))
    # The stores lie beside each other: one of the other kind is not taken.
    assert shown.store.path != rows.store.path
    assert json.loads(rows.store.tools(0) or "") == json.loads(shown.store.tools(0) or "")
    assert "get_weather" in (rows.store.tools(0) or "")
    row = rows.store.row(0)
    assert (row["tool_should_be_used"], len(row["spans"]["tool_call"])) == (True, 1)


@pytest.mark.parametrize("arguments", [{"town": "Rome"}, {"city": "Rome", "days": "two"}, {}])
def test_a_call_that_breaks_its_schema_is_an_error_of_its_line(
    tokenizer: Path, arguments: dict[str, Any]
) -> None:
    broken = copy.deepcopy(record(1))
    broken["truth_message"]["tool_calls"][0]["function"]["arguments"] = arguments
    with pytest.raises(DataError) as error:
        rows_of(tokenizer, [record(2), broken])
    assert error.value.line == 2
    kept = rows_of(tokenizer, [record(2), broken], invalid_calls="keep")
    assert [kept.store.row(row)["call_valid"] for row in range(2)] == [True, False]


def test_the_config_says_it_to_rows_and_readers(tokenizer: Path) -> None:
    whole = rows_of(tokenizer, [record(0)])
    data = DataConfig(
        train=whole.path, tokenizer=tokenizer, shapes=(512,), template="hermes", show_tools=False
    )
    prompt = whole.store.prompt_ids(0).tolist()
    assert KDDataset.from_config(data, whole.path).store.prompt_ids(0).tolist() == prompt
    reader = Reader.of(data)
    assert reader.template == whole.template
    assert reader.rows(whole.path).prompt_ids(1) == prompt


def test_the_same_question_about_other_tools_is_the_same_prompt(tokenizer: Path) -> None:
    changed = copy.deepcopy(record(3))
    changed["tools"][0]["function"]["name"] = "get_climate"
    for show_tools, count in ((False, 1), (True, 0)):
        train = rows_of(tokenizer, [record(3), record(1)], show_tools=show_tools)
        part = rows_of(tokenizer, [changed], "part.jsonl", show_tools=show_tools)
        assert shared_prompts(train, part) == (count, 1)


def test_inspect_and_export_hide_them(tokenizer: Path) -> None:
    rows_of(tokenizer, [record(1)])
    file, given = tokenizer.parent / "train.jsonl", ("--tokenizer", tokenizer, "--template", "hermes")
    shown = run_command("data", "inspect", file, *given)
    hidden = run_command("data", "inspect", file, *given, "--hide-tools")
    assert (shown.returncode, hidden.returncode) == (0, 0), hidden.stderr
    assert "You may call these functions" in shown.stdout
    assert "You may call these functions" not in hidden.stdout
    out = tokenizer.parent / "rows.parquet"
    done = run_command("data", "export", file, *given, "--hide-tools", "--out", out)
    assert done.returncode == 0, done.stderr
    ids = pyarrow.parquet.read_table(out)["ids"][0].as_py()
    rows = rows_of(tokenizer, [record(1)])
    assert ids == rows.store.row(0)["ids"].tolist()
