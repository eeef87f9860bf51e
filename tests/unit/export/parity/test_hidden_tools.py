"""A student with baked-in tools on llama.cpp's real server: no tools are sent, and no calls asked of its parser."""

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from tiny_gguf import write_scripted
from tiny_store import TOOLS, call, message, user, write_records

from kdfast.data import KDDataset, load_template
from kdfast.export.parity.calls import Answering, check_calls
from kdfast.export.parity.conversation import api_messages, api_tools
from kdfast.export.parity.prompts import check_prompts
from kdfast.export.parity.records import ParityRecord, read_records
from kdfast.export.parity.table import measured
from kdfast.llama_cpp import LlamaCppModel, LlamaCppServer, serve

HERMES = resources.files("kdfast.templates").joinpath("hermes.jinja").read_text(encoding="utf-8")
END = 258
PARALLEL = {
    "role": "assistant",
    "content": "Both:",
    "tool_calls": message(a=1, b=2)["tool_calls"] + message(a=3, b=4)["tool_calls"],
}
RESULTS = [{"role": "tool", "content": "3"}, {"role": "tool", "content": '{"sum": 7.0}'}]
RECORDS = [
    {"messages": [user("1 + 2?")], "tools": TOOLS, "truth_message": message(a=1, b=2)},
    {"messages": [user("1 + 2, 3 + 4?"), PARALLEL, *RESULTS], "tools": TOOLS, "truth_text": "3 and 7."},
    {"messages": [{"role": "system", "content": "Be brief."}, user("Hello?")], "truth_text": "Hello."},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that answers every prompt with a call; its file has the template that its tokenizer has."""
    directory = tmp_path_factory.mktemp("hidden")
    hidden = load_template("hermes", directory, show_tools=False)
    write_scripted(directory / "model.gguf", (call(a=1, b=2),), hidden.source)
    (directory / "chat_template.jinja").write_text(hidden.source)
    return directory


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LlamaCppServer]:
    with serve(folder / "model.gguf", context=1024, threads=1) as running:
        yield running


@pytest.fixture(scope="module")
def data(folder: Path) -> KDDataset:
    """The records by the student's own files, as an export reads them."""
    file = write_records(folder / "held_out.jsonl", RECORDS)
    return KDDataset(file, folder, 4096, template="tokenizer", cache=folder / "cache")


@pytest.fixture(scope="module")
def records(data: KDDataset) -> list[ParityRecord]:
    return read_records(data)


def test_records_keep_their_tools_and_send_none(records: list[ParityRecord]) -> None:
    assert [len(record.tools) for record in records] == [1, 1, 0]
    assert [record.sent_tools for record in records] == [(), (), ()]
    assert not any("<tools>" in record.text for record in records)
    assert records[0].text == "<|im_start|>user\n1 + 2?<|im_end|>\n<|im_start|>assistant\n"


def test_records_with_shown_tools_send_them(folder: Path, tmp_path: Path) -> None:
    rows = KDDataset(folder / "held_out.jsonl", folder, 4096, template="hermes", cache=tmp_path)
    shown = read_records(rows)
    assert [record.sent_tools for record in shown] == [record.tools for record in shown]
    assert shown[0].sent_tools


def test_prompts_are_equal(server: LlamaCppServer, data: KDDataset, records: list[ParityRecord]) -> None:
    found = check_prompts(server, records, data.tokenizer)
    assert (found.status, found.problems) == ("passed", ())
    assert (found.figures["compared"], found.figures["equal"]) == (3, 3)


def test_a_client_that_sends_tools_all_the_same_gets_the_same_prompt(
    server: LlamaCppServer, records: list[ParityRecord]
) -> None:
    """The file's template hides them from this version of llama.cpp; others may tell of them in words of their own."""
    for record in records:
        assert server.apply_template(api_messages(record.messages), api_tools(TOOLS)) == record.text
    answer = server.chat(api_messages(records[0].messages), api_tools(TOOLS), max_tokens=20)
    assert answer.tool_calls == (("add", '{"a": 1, "b": 2}'),)


def answering(**changes: object) -> Answering:
    return Answering(**{"formats": ("hermes",), "end_ids": {END}, "max_tokens": 20} | changes)


def test_only_ends_are_compared(folder: Path, server: LlamaCppServer, records: list[ParityRecord]) -> None:
    with LlamaCppModel(folder / "model.gguf", context=1024, threads=1) as runtime:
        found = check_calls(server, runtime, records, answering(server_reads_calls=False))
    assert (found.status, found.problems) == ("passed", ())
    assert found.reason == ""  # all was compared that can be
    assert found.figures["tools_sent"] is False
    told = {name: found.figures[name] for name in ("answers", "with_calls", "ended", "stopped_right", "cut")}
    assert told == {"answers": 3, "with_calls": 3, "ended": 3, "stopped_right": 3, "cut": 0}
    # Without tools the server has no grammar that could change an answer.
    assert found.figures["constrained"] == 0
    # The parser's figures are left out: nobody reads "0 of 3".
    assert found.figures.keys() == {
        "answers", "with_calls", "cut", "ended", "stopped_right", "refused", "constrained", "tools_sent"
    }  # fmt: skip
    assert measured(found) == (
        "no tools are sent: they are baked in, and a client reads the calls in the text; 3 of 3 ends right"
    )


def test_a_parser_that_is_asked_finds_no_call(server: LlamaCppServer, records: list[ParityRecord]) -> None:
    found = check_calls(server, None, records, answering())
    assert found.failed
    assert "llama.cpp does not parse this format of calls" in found.problems[0]


def test_wrong_ends_still_fail(server: LlamaCppServer, records: list[ParityRecord]) -> None:
    found = check_calls(server, None, records, answering(server_reads_calls=False, end_ids={2}))
    assert found.failed
    assert "stops where training does not (2)" in found.problems[0]


def test_where_all_answers_are_cut_nothing_is_measured(
    server: LlamaCppServer, records: list[ParityRecord]
) -> None:
    # The whole call is one token of the scripted model.
    found = check_calls(server, None, records, answering(server_reads_calls=False, max_tokens=1))
    assert found.status == "not_measured"
    assert found.reason == "where answers end is not measured: all 3 were cut at 1 tokens"
