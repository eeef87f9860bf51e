"""Calls that llama.cpp's parser finds against kdfast's, on real servers with models that write a fixed answer."""

from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import pytest
from tiny_gguf import write_scripted
from tiny_store import TOOLS, call, message, user, write_records

from kdfast.data import KDDataset
from kdfast.export.parity.calls import Answering, check_calls, choose, same_calls
from kdfast.export.parity.records import ParityRecord, read_records
from kdfast.llama_cpp import LlamaCppModel, serve

TEMPLATE = resources.files("kdfast.templates").joinpath("hermes.jinja").read_text(encoding="utf-8")
END = 258
RECORDS = [
    {"messages": [user("1 + 2?")], "tools": TOOLS, "truth_message": message(a=1, b=2)},
    {"messages": [user("Both?")], "tools": TOOLS, "truth_text": call(a=1, b=2) + "\n" + call(a=3, b=4)},
    {"messages": [user("Hello?")], "tools": TOOLS, "truth_text": "Hello."},
]


@contextmanager
def checking(folder, answer, records=RECORDS, template=TEMPLATE, **options):
    """The check on a model that answers every prompt with `answer`."""
    file = write_scripted(folder / "model.gguf", answer, template)
    (folder / "template.jinja").write_text(template)
    data = KDDataset(
        write_records(folder / "held_out.jsonl", records), folder, 4096, template=folder / "template.jinja",
        cache=folder / "cache",
    )  # fmt: skip
    answering = Answering(
        formats=options.pop("formats", data.formats), end_ids={END}, max_tokens=options.pop("max_tokens", 20)
    ) if "answering" not in options else options.pop("answering")  # fmt: skip
    with (
        serve(file, context=2048, threads=1) as server,
        LlamaCppModel(file, context=2048, threads=1) as runtime,
    ):
        yield check_calls(server, runtime, read_records(data), answering, **options)


def test_equal_calls_and_ends_pass(tmp_path):
    done = []
    with checking(
        tmp_path, (call(a=1, b=2), "\n" + call(a=5, b=6)), on_progress=lambda *at: done.append(at)
    ) as found:
        assert (found.status, found.problems, found.reason) == ("passed", (), "")
        assert found.figures == {
            "answers": 3, "with_calls": 3, "equal": 3, "cut": 0, "ended": 3, "stopped_right": 3, "forced_answers": 3,
            "forced_with_calls": 2, "forced_equal": 3, "missed": 0, "constrained": 0,
        }  # fmt: skip
    assert done == [(1, 3), (2, 3), (3, 3)]


def test_a_student_that_calls_nothing_is_judged_by_the_right_answers(tmp_path):
    with checking(tmp_path, ("Three.",)) as found:
        assert found.status == "passed"
        assert (found.figures["with_calls"], found.figures["forced_with_calls"]) == (0, 2)


def test_a_format_that_llama_cpp_does_not_parse_is_said_and_can_be_waived(tmp_path):
    """Its parser looks for what the template writes; the answers are in another format."""
    fenced = '```json\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n```'
    records = [{"messages": [user("1 + 2?")], "tools": TOOLS, "truth_text": fenced}]
    with checking(tmp_path, (fenced,), records, formats=("fenced",)) as found:
        assert found.failed
        assert "llama.cpp does not parse this format of calls" in found.problems[0]
        assert found.figures["missed"] == 2
    (tmp_path / "again").mkdir()
    with checking(tmp_path / "again", (fenced,), records, formats=("fenced",), waivers=["calls"]) as found:
        assert (found.status, found.problems) == ("waived", ())


def test_an_end_token_that_the_runtime_does_not_know_is_found(tmp_path):
    """Training ends answers at a token in the middle of what the model writes."""
    other = Answering(formats=("hermes",), end_ids={260}, max_tokens=20)
    with checking(tmp_path, ("Hello", "\nend", "\nmore"), answering=other) as found:
        assert found.failed
        assert found.problems[0] == "the runtime does not stop at an end token of training: 260"
        assert "does not stop at training's end token 260: the answer to line" in found.problems[1]
    early = Answering(formats=("hermes",), end_ids={2}, max_tokens=20)
    (tmp_path / "again").mkdir()
    with checking(tmp_path / "again", (call(a=1, b=2),), answering=early) as found:
        assert found.failed
        assert any("stops where training does not (2)" in problem for problem in found.problems)
        assert found.figures["stopped_right"] == 0


def test_cut_answers_are_not_compared(tmp_path):
    with checking(tmp_path, (call(a=1, b=2), "\n" + call(a=5, b=6)), max_tokens=1) as found:
        assert found.status == "passed"
        assert (found.figures["cut"], found.figures["ended"], found.figures["equal"]) == (3, 0, 0)


def test_answers_that_the_server_s_grammar_changes_are_counted(tmp_path):
    """After a call its grammar allows further calls alone."""
    with checking(tmp_path, (call(a=1, b=2), "\nend"), RECORDS[:1]) as found:
        assert found.status == "passed"
        assert found.figures["constrained"] == 1


def made(line, answer, **options):
    return ParityRecord(
        file=Path("x"),
        line=line,
        shape=64,
        ids=(1, 2),
        start=1,
        text="",
        answer=answer,
        tools=tuple(TOOLS),
        **options,
    )


def test_records_of_each_number_of_calls_and_some_without_are_chosen():
    answering = Answering(formats=("hermes",), end_ids={END})
    one, two = call(a=1, b=2), call(a=1, b=2) + "\n" + call(a=3, b=4)
    records = (
        [made(line, one) for line in range(1, 31)]
        + [made(31, two)]
        + [made(line, "no") for line in range(32, 40)]
    )
    chosen = choose(records, answering)
    assert [record.line for record in chosen] == [1, 31, 2, 3, 4, 5, 6, 7, 8, 32, 33, 34]
    assert [record.line for record in choose(records[32:], answering)] == list(range(33, 40))
    left_out = [made(1, one, plain_prompt=True), made(2, one, special_in_content=True)]
    assert choose(left_out, answering) == []


def test_without_a_record_that_can_be_asked_nothing_is_measured():
    found = check_calls(
        None, None, [made(1, "a", plain_prompt=True)], Answering(formats=("hermes",), end_ids={END})
    )
    assert found.status == "not_measured"
    assert "messages without special tokens" in found.reason


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ([("f", '{"a": 1, "b": 2}')], [("f", '{"b":2.0,"a":1}')], True),
        ([("f", "{}")], [("g", "{}")], False),
        ([("f", "{}"), ("g", "{}")], [("g", "{}"), ("f", "{}")], False),
        ([("f", '{"a": "1"}')], [("f", '{"a": 1}')], False),
        ([("f", '{"a": false}')], [("f", '{"a": 0}')], False),
        ([("f", '{"a": "\\u00e9"}')], [("f", '{"a": "é"}')], True),
        ([("f", "{}")], [("f", "{")], False),
        ([], [], True),
    ],
)
def test_calls_are_equal_as_json_values(ours, theirs, same):
    assert same_calls(tuple(ours), tuple(theirs)) is same
