"""The checks of the data as a whole: each passes on a clean project, and catches its fault."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from preflight_objects import assert_only_fails, clean, failing, find, look, objects_of, write_project
from preflight_rows import changed, rows_of, with_config, write

from kdfast.errors import ConfigError
from kdfast.recipes.preflight.checks_data import (
    CHECKS,
    held_out_prompts_are_new,
    held_out_prompts_suffice,
    records_are_read,
    rows_are_not_repeated,
)
from kdfast.recipes.preflight.look import look_once
from kdfast.recipes.preflight.made.makers import MAKERS
from kdfast.recipes.preflight.made.objects import Objects

Json = dict[str, Any]


def held_out(*numbers: range) -> list[Json]:
    return [tiny_run.record(number) for some in numbers for number in some]


def duplicated_validation(folder: Path) -> Objects:
    """What is held out is trained on."""
    return clean().replaced(held_out_rows=rows_of(folder, held_out(range(12)), "validation.jsonl"))


def too_few_prompts(folder: Path) -> Objects:
    return with_config(changed("train", eval_prompts=50))


def no_teachers_answer(folder: Path) -> Objects:
    """kd.ce_teacher_weight has no row: nobody gives a teacher's answer."""
    records = [tiny_run.record(number) for number in range(48)]
    for record in records:
        record.pop("teacher_text", None)
    return clean().replaced(train_rows=rows_of(folder, records))


def another_temperature(folder: Path) -> Objects:
    """The store's log-probabilities are of another temperature than the loss."""
    return with_config(changed("kd", temperature=3.0))


def shapes_without_rows(folder: Path) -> Objects:
    return with_config(changed("data", shape_probs=(1.0, 0.0, 0.0)))


@pytest.mark.parametrize(
    ("name", "fault", "words"),
    [
        (
            "data.held_out_prompts_are_new",
            duplicated_validation,
            "12 of 12 held-out prompts are among the 56 rows",
        ),
        (
            "data.held_out_prompts_suffice",
            too_few_prompts,
            "asks for more held-out prompts than the file has",
        ),
        ("data.terms_find_their_rows", no_teachers_answer, "kd.ce_teacher_weight: needs"),
        ("data.rows_can_be_drawn", shapes_without_rows, "above 0 for a shape that has rows"),
    ],
)
def test_a_fault_is_caught(name: str, fault: Callable[[Path], Objects], words: str, tmp_path: Path) -> None:
    assert words in assert_only_fails(name, fault(tmp_path)).text


def test_another_temperature_is_caught_with_the_config(tmp_path: Path) -> None:
    objects = with_config(changed("kd", temperature=3.0))
    store = "teacher.store_knows_the_rows"
    assert failing(objects) == ["config.sections_agree", "data.terms_find_their_rows", store]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"prompt": "a", "truth_text": "b"', "train.jsonl:49"),
        ('{"prompt": "a", "truth_text": 5}', "truth_text"),
        ('{"prompt": "a"}', "no answer"),
    ],
)
def test_a_broken_line_stops_it(line: str, words: str, tmp_path: Path) -> None:
    config = write_project(tmp_path / "project")
    with config.data.train_files[0].open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    finding = look("data.records_are_read", objects_of(config, tmp_path / "work"))
    assert (finding.status, words in finding.text) == ("fail", True), finding


def test_lines_that_are_set_aside_are_named(tmp_path: Path) -> None:
    config = write_project(tmp_path / "project")
    with config.data.train_files[0].open("a", encoding="utf-8") as file:
        file.write('{"prompt": "a"}\n')
    data = replace(config.data, on_error="quarantine", max_rejected_fraction=0.5)
    rows = objects_of(replace(config, data=data), tmp_path / "work").get("written_rows")
    finding = records_are_read(config, clean().get("sample"), rows, None)[0]
    assert (finding.status, "1 lines rejected" in finding.text) == ("warn", True), finding
    assert finding.shown[0].startswith("train.jsonl:49: no answer")


def repeated() -> list[Json]:
    return [tiny_run.record(0), tiny_run.record(1), tiny_run.record(1)]


def answered_twice() -> list[Json]:
    other = tiny_run.record(3) | {"truth_message": {"role": "assistant", "content": "No."}}
    return [tiny_run.record(3), other]


def all_call() -> list[Json]:
    return [tiny_run.record(number) for number in range(20) if number % 4 != 3 and number % 5]


def none_calls() -> list[Json]:
    return [tiny_run.record(number) for number in range(3, 30, 4)]


def without_tools() -> list[Json]:
    return [{key: value for key, value in record.items() if key != "tools"} for record in none_calls()]


@pytest.mark.parametrize(
    ("name", "records", "words"),
    [
        ("data.rows_are_not_repeated", repeated, "rows have the tokens of an earlier row"),
        (
            "data.rows_are_not_repeated",
            answered_twice,
            "1 records ask what an earlier one asks and answer otherwise",
        ),
        ("data.some_rows_need_no_call", all_call, "0 (0%) need no call, fewer than 1 in 10"),
        ("data.some_rows_need_no_call", none_calls, "none needs a call"),
        ("data.some_rows_need_no_call", without_tools, "none has tools"),
    ],
)
def test_what_may_be_meant_is_a_warning(
    name: str, records: Callable[[], list[Json]], words: str, tmp_path: Path
) -> None:
    finding = look(name, clean().replaced(train_rows=rows_of(tmp_path, records())))
    assert (finding.status, words in finding.text) == ("warn", True), finding
    assert finding.remedy


def test_some_shared_prompts_are_a_warning(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, held_out(range(1), range(100, 119)), "validation.jsonl")
    finding = look("data.held_out_prompts_are_new", clean().replaced(held_out_rows=rows))
    assert finding.status == "warn", finding


def test_rows_of_a_shape_that_is_never_drawn_are_a_warning() -> None:
    rows = clean().get("train_rows")
    weights = tuple(float(shape != 256) for shape in rows.shapes)
    finding = look("data.rows_can_be_drawn", with_config(changed("data", shape_probs=weights)))
    assert (finding.status, "are never drawn" in finding.text) == ("warn", True), finding


@pytest.mark.parametrize("name", [check.name for check in CHECKS])
def test_a_clean_project_passes(name: str, tmp_path: Path) -> None:
    objects = clean()
    if name == "data.held_out_prompts_are_new":  # the tiny records repeat themselves
        rows = rows_of(tmp_path, held_out(range(2000, 2006)), "validation.jsonl")
        objects = objects.replaced(held_out_rows=rows)
    finding = look(name, objects)
    assert finding.status == "pass", finding


def test_without_held_out_records_nothing_is_compared() -> None:
    config, sample, rows = (clean().get(name) for name in ("config", "sample", "train_rows"))
    assert held_out_prompts_are_new(config, sample, rows, None).status == "skip"
    assert held_out_prompts_suffice(config, None).status == "skip"


def test_prompts_that_nobody_answered_are_compared_as_they_are_written(tmp_path: Path) -> None:
    config, sample, rows, held = (
        clean().get(name) for name in ("config", "sample", "train_rows", "held_out_rows")
    )
    asked = [{key: tiny_run.record(number)[key] for key in ("messages", "tools")} for number in range(48, 60)]
    prompts = write(tmp_path / "prompts.jsonl", [*asked, {"prompt": "Is it raining?"}])
    with prompts.open("a", encoding="utf-8") as file:
        file.write('not JSON\n{"messages": [], "prompt": "x"}\nnull\n')
    teacher = replace(config.teacher, prompts=prompts, out=tmp_path / "out.jsonl")
    data = replace(config.data, on_error="quarantine", max_rejected_fraction=1.0)
    asking, unanswered = replace(config, teacher=teacher, data=data), replace(sample, asked=True)
    finding = held_out_prompts_are_new(asking, unanswered, rows, held)
    assert (finding.status, finding.text[:27]) == ("fail", "12 of 12 held-out prompts a"), finding
    assert rows_are_not_repeated(asking, unanswered, rows).status == "skip"
    read = records_are_read(asking, unanswered, rows, None)
    assert [one.status for one in read] == ["pass"]
    assert "not answered yet" in read[0].text


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
ANY_LINE = ANY_JSON | st.dictionaries(
    st.sampled_from(["messages", "prompt", "tools", "functions", "metadata", "truth_message"]), ANY_JSON
)


@given(lines=st.lists(ANY_LINE, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_any_line_among_the_prompts_is_compared_or_left_out(lines: list[Any], tmp_path: Path) -> None:
    config, rows, held = (clean().get(name) for name in ("config", "train_rows", "held_out_rows"))
    asked = {"messages": [{"role": "user", "content": "Is it raining?"}]}
    prompts = write(
        tmp_path / "prompts.jsonl", [asked, *lines]
    )  # a file that begins with a list is refused as a whole
    data = replace(config.data, on_error="quarantine", max_rejected_fraction=1.0)
    config = replace(
        config, data=data, teacher=replace(config.teacher, prompts=prompts, out=tmp_path / "out.jsonl")
    )
    finding = held_out_prompts_are_new(config, replace(clean().get("sample"), asked=True), rows, held)
    assert (finding.status, finding.text[:28]) == ("pass", "0 of 12 held-out prompts are"), finding


def test_records_that_cannot_be_read_are_named_by_their_line(tmp_path: Path) -> None:
    rows = copy.copy(clean().get("train_rows"))
    rows.rejected, rows.too_long = 0, [7, 9]
    finding = records_are_read(clean().get("config"), clean().get("sample"), rows, None)[0]
    assert (finding.status, finding.shown) == ("warn", ("too long: lines 7, 9",))


def test_the_sample_is_told() -> None:
    found = look("data.sample_is_drawn", clean())
    assert (found.status, found.text) == (
        "pass",
        "16 records of 56 rows, and 6 held out, make the small run",
    )


def test_a_sample_that_is_too_small_warns() -> None:
    sample = clean().get("sample")
    few = replace(sample, records=sample.records[:9], of=9)
    small = clean().get("small")
    found = look("data.sample_is_drawn", clean().replaced(sample=few, small=small))
    assert (found.status, "fewer than 10" in found.remedy) == ("warn", True)


def test_a_small_run_that_cannot_be_made_is_its_fault_alone() -> None:
    def broken(sample: Any) -> Any:
        raise ConfigError("arch.init: no such directory; check the path: none")

    objects = Objects({**MAKERS, "small": broken}, {"sample": clean().get("sample")})
    found = look_once(find("data.sample_is_drawn"), objects)[0]
    assert (found.status, found.remedy) == ("fail", "check the path: none")
    assert look_once(find("batch.shapes"), objects)[0].status == "skip"


def test_tools_count_for_a_prompt_only_where_it_shows_them(tmp_path: Path) -> None:
    """The same questions about a tool of another name, asked of a teacher or answered."""
    config, sample = (clean().get(name) for name in ("config", "sample"))
    other = copy.deepcopy([tiny_run.record(number) for number in range(3, 30, 4)])
    asked = copy.deepcopy(other)
    for record in other:
        record["tools"][0]["function"]["name"] = "get_climate"
    prompts = write(
        tmp_path / "prompts.jsonl", [{key: one[key] for key in ("messages", "tools")} for one in asked]
    )
    for shown, status in ((True, "pass"), (False, "fail")):
        data = replace(config.data, show_tools=shown)
        folder = tmp_path / str(shown)
        rows = rows_of(folder, asked, show_tools=shown)
        held = rows_of(folder, other, "validation.jsonl", show_tools=shown)
        found = held_out_prompts_are_new(replace(config, data=data), sample, rows, held)
        assert found.status == status, found
        teacher = replace(config.teacher, prompts=prompts, out=tmp_path / "out.jsonl")
        asking = replace(config, teacher=teacher, data=data)
        found = held_out_prompts_are_new(asking, replace(sample, asked=True), rows, held)
        assert found.status == status, found
