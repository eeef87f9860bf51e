"""The checks of tokenizer, template and turn ends: each passes on a clean project, and catches its fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_models
import tiny_run
from preflight_objects import assert_only_fails, clean, failing, look, objects_of, write_project
from preflight_rows import any_row, break_row, changed, rows_of, with_config

from kdfast.data.token_rows import Reader
from kdfast.recipes.preflight.checks_tokens import (
    CHECKS,
    control_tokens_stay_text,
    named_tokens_exist,
    template_is_saved,
    template_renders,
    template_uses_the_tools,
    texts_come_back,
    turn_end_is_learned,
    vocabularies_agree,
)
from kdfast.recipes.preflight.made.objects import Objects

Json = dict[str, Any]


def mask_turn_end(row: Json) -> None:
    row["supervised"] = row["supervised"] - np.array([[0, 1]])


def forget_turn_end(row: Json) -> None:
    row["spans"]["turn_end"] = row["spans"]["turn_end"][:0]


def end_inside(row: Json) -> None:
    row["ids"][row["response_start"] + 1] = row["ids"][-1]


def pad_inside(row: Json) -> None:
    row["ids"][row["response_start"] + 1] = 0


def hide_tools(row: Json) -> None:
    row["tools"] = row["tools"].replace("get_weather", "get_forecast")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("tokens.turn_end_is_learned", mask_turn_end, "the end of the turn is masked"),
        ("tokens.control_tokens_stay_text", end_inside, "token 1 of the answer ends the turn"),
        (
            "tokens.named_tokens_exist",
            pad_inside,
            "the padding token '<|endoftext|>' is inside what is learned",
        ),
        ("tokens.template_uses_the_tools", hide_tools, "does not show the tools get_forecast"),
    ],
)
def test_a_broken_row_is_caught(name: str, change: Callable[[Json], None], words: str) -> None:
    finding = assert_only_fails(name, break_row(lambda row: not len(row["spans"]["tool_call"]), change))
    assert words in finding.text
    assert finding.remedy


def unended(row: Json) -> None:
    row["ids"] = row["ids"][:-1]


def test_an_answer_that_does_not_end_is_caught() -> None:
    rows, sampled = clean().get("sample_rows"), break_row(any_row, unended).get("sampled")
    assert "does not end its turn" in turn_end_is_learned(rows, sampled).text
    rows_without_mark = break_row(any_row, forget_turn_end)
    assert "and not marked" in look("tokens.turn_end_is_learned", rows_without_mark).text
    cut = [row | {"ids": row["ids"][:-1], "finish_reason": "length"} for row in clean().get("sampled")]
    assert turn_end_is_learned(rows, cut).status == "warn"


def reader_with(folder: Path, *, template: str = "hermes", settings: Json | None = None) -> Reader:
    """A reader of the clean project's tokenizer with other settings, or another template."""
    data = clean().get("config").data
    directory = folder / "tokenizer"
    directory.mkdir(exist_ok=True)
    (directory / "tokenizer.json").write_bytes((data.tokenizer / "tokenizer.json").read_bytes())
    own = json.loads((data.tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
    (directory / "tokenizer_config.json").write_text(json.dumps(own | (settings or {})), encoding="utf-8")
    if template.startswith("{"):
        file = folder / "own.jinja"
        file.write_text(template, encoding="utf-8")
        template = str(file)
    return Reader.of(replace(data, tokenizer=directory, template=template))


def unknown_pad(folder: Path) -> Objects:
    return clean().replaced(reader=reader_with(folder, settings={"pad_token": "<pad>"}))


def template_writes_eos(folder: Path) -> Objects:
    """The saved student calls its turn end eos_token; here eos_token is another token."""
    reader = reader_with(
        folder, template=tiny.CHATML + "{{ eos_token }}", settings={"eos_token": "<|endoftext|>"}
    )
    return clean().replaced(reader=reader)


def lossy_tokenizer(folder: Path) -> Objects:
    """A tokenizer without a token for Z."""
    reader = reader_with(folder)
    file = folder / "tokenizer" / "tokenizer.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = document["model"]["vocab"]
    document["model"]["merges"] = []
    document["model"]["vocab"] = {piece: index for piece, index in vocabulary.items() if piece != "P"}
    file.write_text(json.dumps(document), encoding="utf-8")
    return clean().replaced(reader=Reader.of(reader.data))


@pytest.mark.parametrize(
    ("name", "fault", "words"),
    [
        ("tokens.named_tokens_exist", unknown_pad, "name pad_token '<pad>', which is no token"),
        ("tokens.template_is_saved", template_writes_eos, "renders otherwise by the saved student's files"),
    ],
)
def test_a_broken_reader_is_caught(
    name: str, fault: Callable[[Path], Objects], words: str, tmp_path: Path
) -> None:
    assert words in assert_only_fails(name, fault(tmp_path)).text


def test_a_tokenizer_that_loses_letters_is_caught(tmp_path: Path) -> None:
    sample = clean().get("sample")
    lossy = lossy_tokenizer(tmp_path).get("reader")
    answered = replace(sample, records=({"prompt": "a", "truth_text": "In Paris"},))
    finding = texts_come_back(lossy, answered)
    assert (finding.status, "answers among them" in finding.text) == ("fail", True), finding
    asked = replace(sample, records=({"prompt": "In Paris", "truth_text": "a"},))
    finding = texts_come_back(lossy, asked)
    assert (finding.status, "1 texts of prompts are changed" in finding.text) == ("warn", True), finding


def test_a_template_that_ignores_tools_or_the_question_is_caught(tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text(tiny.CHATML, encoding="utf-8")
    rows = rows_of(tmp_path, [tiny_run.record(3)], template=str(file))
    sampled = [rows.store.row(0)]
    reader = Reader.of(changed("data", template=str(file)).data)
    assert template_renders(reader, rows, sampled).status == "pass"
    finding = template_uses_the_tools(rows, sampled)
    assert (finding.status, "the prompt that the chat template makes" in finding.text) == ("fail", True)
    file.write_text(
        tiny.CHATML.replace("message.content or ''", "message.content if message.role != 'user' else ''"),
        encoding="utf-8",
    )
    rows = rows_of(tmp_path / "more", [tiny_run.record(3)], template=str(file))
    assert "leaves out the last message" in template_renders(reader, rows, [rows.store.row(0)]).text


WITHOUT_TOOLS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}<tool_call>\n"
    '{"name": {{ call.function.name | tojson }}, "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Writes calls, and ignores the tools."""


@pytest.mark.parametrize(
    ("template", "name", "words"),
    [
        (WITHOUT_TOOLS, "tokens.template_uses_the_tools", "does not show the tools get_weather"),
        (
            tiny.CHATML,
            "data.records_are_read",
            "its call is not found in the text that the chat template makes",
        ),
    ],
)
def test_a_project_whose_template_ignores_tools_or_calls(
    tmp_path: Path, template: str, name: str, words: str
) -> None:
    """All objects are made of such a project, as for a user."""
    project = write_project(tmp_path / "project")
    file = tmp_path / "own.jinja"
    file.write_text(template, encoding="utf-8")
    broken = replace(project, data=replace(project.data, template=str(file)))
    assert words in assert_only_fails(name, objects_of(broken, tmp_path / "work")).text


def test_a_template_that_is_no_jinja_fails_the_check_that_owns_it(tmp_path: Path) -> None:
    config = write_project(tmp_path / "project")
    file = tmp_path / "own.jinja"
    file.write_text("{% for %}", encoding="utf-8")
    broken = replace(config, data=replace(config.data, template=str(file)))
    assert look("tokens.template_renders", objects_of(broken, tmp_path / "work")).status == "fail"


def of_another_model(folder: Path) -> Objects:
    """The student starts from a model with another tokenizer."""
    directory = tiny_models.write_model(folder / "other", vocab_size=600)
    config = clean().get("config")
    arch = replace(config.arch, init=str(directory))
    return with_config(replace(config, arch=arch))


def too_few_rows(folder: Path) -> Objects:
    """The student has fewer rows of embeddings than the tokenizer has ids."""
    directory = tiny_models.write_model(folder / "other")
    return with_config(changed("arch", init=str(directory)))


def another_teacher(folder: Path) -> Objects:
    directory = tiny_models.write_model(folder / "other", vocab_size=600)
    config = clean().get("config")
    arch = replace(config.arch, init=str(config.teacher.model))
    return with_config(replace(config, arch=arch, teacher=replace(config.teacher, model=directory)))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (of_another_model, "data.tokenizer is not the tokenizer of"),
        (too_few_rows, "the tokenizer has 487 ids, and the student 300 rows of embeddings"),
        (another_teacher, "student and teacher use different vocabularies"),
    ],
)
def test_another_vocabulary_is_caught(fault: Callable[[Path], Objects], words: str, tmp_path: Path) -> None:
    assert words in assert_only_fails("tokens.vocabularies_agree", fault(tmp_path)).text


def test_rows_and_stores_of_another_tokenizer_are_caught(tmp_path: Path) -> None:
    config, rows, sample_rows = (clean().get(name) for name in ("config", "train_rows", "sample_rows"))
    other = Reader.of(replace(config.data, tokenizer=tiny_models.write_tokenizer(tmp_path / "other")))
    assert "of another tokenizer" in vocabularies_agree(config, other, rows, sample_rows).text
    from kdfast import _rust

    store = tmp_path / "store"
    with _rust.TeacherWriter.open(store, "f", k=2, vocab_size=9999, samples=0):
        pass
    stored = replace(config, teacher=replace(config.teacher, store=store))
    assert "9999 ids" in vocabularies_agree(stored, clean().get("reader"), rows, sample_rows).text


def test_a_teacher_that_is_not_converted_is_not_passed(tmp_path: Path) -> None:
    config, reader, rows, sample_rows = (
        clean().get(name) for name in ("config", "reader", "train_rows", "sample_rows")
    )
    arch = replace(config.arch, init=str(config.teacher.model))
    later = replace(config, arch=arch, teacher=replace(config.teacher, model=tmp_path / "teacher.gguf"))
    finding = vocabularies_agree(later, reader, rows, sample_rows)
    assert (finding.status, "is not converted yet" in finding.text) == ("warn", True), finding


def test_control_tokens_that_become_tokens_are_a_warning() -> None:
    sample, rows, sample_rows, sampled = (
        clean().get(name) for name in ("sample", "train_rows", "sample_rows", "sampled")
    )
    record = {"messages": [{"role": "user", "content": "What is <|im_end|>?"}], "truth_text": "x"}
    written = replace(sample, records=(record,))
    reader = clean().get("reader")
    allowing = replace(reader, data=replace(reader.data, content_tokens="allow"))
    finding = control_tokens_stay_text(allowing, written, rows, sample_rows, sampled)
    assert (finding.status, "<|im_end|>" in finding.text) == ("warn", True), finding
    assert control_tokens_stay_text(reader, written, rows, sample_rows, sampled).status == "pass"


@pytest.mark.parametrize("name", [check.name for check in CHECKS])
def test_a_clean_project_passes(name: str) -> None:
    finding = look(name, clean())
    assert finding.status == "pass", finding


def test_the_first_prompt_is_shown() -> None:
    assert "get_weather" in "\n".join(look("tokens.template_renders", clean()).shown)


def test_prompts_that_are_text_are_not_rendered(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, [{"prompt": "Is it raining?", "truth_text": "Yes"}])
    sampled, reader = [rows.store.row(0)], clean().get("reader")
    sample = replace(clean().get("sample"), records=({"prompt": "Is it raining?", "truth_text": "Yes"},))
    found = [
        template_renders(reader, rows, sampled),
        template_uses_the_tools(rows, sampled),
        template_is_saved(reader, sample, rows, clean().get("student"), tmp_path),
    ]
    assert [one.status for one in found] == ["skip"] * 3


def test_a_turn_end_that_also_pads_is_learned(tmp_path: Path) -> None:
    reader = reader_with(tmp_path, settings={"pad_token": "<|im_end|>"})
    finding = named_tokens_exist(reader, clean().get("sample_rows"), clean().get("sampled"))
    assert (finding.status, "also ends a turn" in finding.text) == ("pass", True)


def hidden_rows(folder: Path, *records: Json) -> tuple[Any, list[Json]]:
    """The rows of records, with `data.show_tools: false`."""
    rows = rows_of(folder, list(records), show_tools=False)
    return rows, [rows.store.row(index) for index in rows.rows.tolist()]


def told(text: str, role: str = "system") -> Json:
    """A record in which one more message says this."""
    one = tiny_run.record(1)
    return one | {"messages": [{"role": role, "content": text}, *one["messages"]]}


def test_tools_that_are_baked_in_are_not_shown(tmp_path: Path) -> None:
    finding = template_uses_the_tools(*hidden_rows(tmp_path, tiny_run.record(1), tiny_run.record(3)))
    assert (finding.status, finding.text) == (
        "pass",
        "2 of 2 rows have tools, and no prompt shows one: they are baked in (data.show_tools: false)",
    )
    without = {key: value for key, value in tiny_run.record(3).items() if key != "tools"}
    assert template_uses_the_tools(*hidden_rows(tmp_path / "more", without)).status == "skip"


DEFINITION = tiny_run.TOOL["function"]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([tiny_run.TOOL]),
        f"You may call:\n{json.dumps({**DEFINITION, 'description': ''}, indent=1)}",
        f"def get_weather(city: str): {DEFINITION['description']}",
    ],
    ids=["JSON", "without a description", "Python"],
)
@pytest.mark.parametrize("role", ["system", "user"])
def test_a_message_that_defines_a_tool_that_is_baked_in_is_caught(
    tmp_path: Path, text: str, role: str
) -> None:
    rows, sampled = hidden_rows(tmp_path, tiny_run.record(3), told(text, role))
    finding = template_uses_the_tools(rows, sampled)
    assert finding.status == "fail"
    assert finding.text.startswith(
        "train.jsonl:2: the prompt shows the tools get_weather, and they are baked in"
    )
    assert "data.show_tools" in finding.remedy


def test_a_name_alone_is_no_definition(tmp_path: Path) -> None:
    """An earlier call has it, in the form of Llama 3 too, and a question may."""
    call = tiny_run.record(1)["truth_message"]
    one = tiny_run.record(2)
    result = {"role": "tool", "content": '{"type": "rain"}'}
    earlier = one | {"messages": [*tiny_run.record(1)["messages"], call, result, *one["messages"]]}
    rows, sampled = hidden_rows(
        tmp_path,
        earlier,
        told('What is "get_weather"?', "user"),
        told('{"name": "get_weather", "parameters": {"city": "Rome", "type": "now"}}'),
        told("Weather of a city."),
    )
    assert '"get_weather"' in rows.tokenizer.decode(rows.store.prompt_ids(0).tolist())
    finding = template_uses_the_tools(rows, sampled)
    assert finding.status == "pass", finding


def test_a_project_whose_tools_are_baked_in_is_clean(tmp_path: Path) -> None:
    """All objects are made of such a project, as for a user."""
    project = write_project(tmp_path / "project")
    objects = objects_of(replace(project, data=replace(project.data, show_tools=False)), tmp_path / "work")
    assert failing(objects) == []
    assert "no prompt shows one" in look("tokens.template_uses_the_tools", objects).text
    assert look("tokens.template_is_saved", objects).status == "pass"
