"""Calls that llama.cpp's parser finds against kdfast's, on real servers with models that write a fixed answer."""

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
import torch
from tiny_gguf import write_llama, write_scripted
from tiny_models import tiny_llama, write_tokenizer
from tiny_store import TOOLS, call, message, user, write_records

from kdfast.data import KDDataset
from kdfast.errors import DataError
from kdfast.export.parity.calls import Answering, check_calls, choose, is_constrained
from kdfast.export.parity.forced import parse_answer
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
def checking(
    folder,
    answer,
    records=RECORDS,
    template=TEMPLATE,
    trained=None,
    server_type=lambda server: server,
    **options,
):
    """The check on a model that answers every prompt with `answer`; `trained`: training's template, if another."""
    file = write_scripted(folder / "model.gguf", answer, template)
    (folder / "template.jinja").write_text(trained or template)
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
        used = runtime if options.pop("with_runtime", True) else None
        yield check_calls(server_type(server), used, read_records(data), answering, **options)


def test_equal_calls_and_ends_pass(tmp_path):
    done = []
    with checking(
        tmp_path, (call(a=1, b=2), "\n" + call(a=5, b=6)), on_progress=lambda *at: done.append(at)
    ) as found:
        assert (found.status, found.problems, found.reason) == ("passed", (), "")
        assert found.figures == {
            "answers": 3, "with_calls": 3, "equal": 3, "cut": 0, "ended": 3, "stopped_right": 3, "forced_answers": 3,
            "forced_with_calls": 2, "forced_equal": 3, "forced_refused": 0, "missed": 0, "refused": 0,
            "constrained": 0,
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
        assert "the first is the answer to line 1: '```json" in found.problems[0]
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
        assert found.reason == "where answers end is not measured: all 3 were cut at 1 tokens"


def test_cut_answers_and_right_answers_without_calls_measure_nothing(tmp_path):
    with checking(tmp_path, ("Hello", " you"), RECORDS[2:], max_tokens=1) as found:
        assert found.status == "not_measured"
        assert found.reason == (
            "the calls are not measured: no answer has one; "
            "where answers end is not measured: the only one was cut at 1 tokens"
        )


LOOSE = TEMPLATE.replace("['system', 'user']", "['system', 'user', 'critic']")
REFUSED = {"messages": [user("1 + 2?"), {"role": "critic", "content": "hm"}], "tools": TOOLS} | {
    "truth_message": message(a=1, b=2)
}


@pytest.mark.parametrize("waivers", [(), ("calls",), ("refused",)])
def test_a_refused_record_is_counted_and_the_others_are_measured(tmp_path, waivers):
    records = [REFUSED, *RECORDS]
    with checking(tmp_path, (call(a=1, b=2),), records, trained=LOOSE, waivers=waivers) as found:
        assert found.figures["refused"] == 1
        assert (found.figures["answers"], found.figures["equal"]) == (3, 3)
        assert (found.figures["forced_answers"], found.figures["forced_refused"]) == (3, 0)
        assert found.reason == ""
        if "refused" in waivers:
            assert (found.status, found.problems) == ("waived", ())
        else:
            assert found.failed
            (problem,) = found.problems
            assert (
                "the server refuses the messages or the tools of 1 record; the first is line 1: " in problem
            )
            assert "critic" in problem
            assert problem.endswith("accept that with the waiver refused")


def test_where_all_records_are_refused_nothing_is_measured(tmp_path):
    with checking(tmp_path, (call(a=1, b=2),), [REFUSED], trained=LOOSE, waivers=["refused"]) as found:
        assert found.status == "not_measured"
        assert (
            "the answers are not measured: the server refuses the messages or the tools of 1" in found.reason
        )


def test_refused_right_answers_are_counted_one_by_one(tmp_path):
    """One has more tokens than the server's context."""
    long = {"messages": [user("Hello?")], "tools": TOOLS, "truth_text": "Hello. " * 350}
    with checking(tmp_path, (call(a=1, b=2),), [long, *RECORDS[:2]], with_runtime=False) as found:
        assert (found.status, found.problems, found.reason) == ("passed", (), "")
        assert found.figures["answers"] == 3
        assert (found.figures["forced_answers"], found.figures["forced_refused"]) == (2, 1)
    (tmp_path / "again").mkdir()
    with checking(tmp_path / "again", (call(a=1, b=2),), [long], with_runtime=False) as found:
        assert found.status == "passed"
        assert found.reason.startswith("right answers are not measured: ")
        assert "context" in found.reason


def test_calls_that_are_missed_here_and_there_are_shown(tmp_path):
    """The student writes the template's format, one right answer another one."""
    fenced = '```json\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n```'
    records = [{"messages": [user("1 + 2?")], "tools": TOOLS, "truth_text": fenced}]
    with checking(tmp_path, (call(a=1, b=2),), records, formats=("hermes", "fenced")) as found:
        assert found.failed
        (problem,) = found.problems
        assert "no call in 1 of 2 answers" in problem
        assert "the first is the right answer of line 1: '```json" in problem


def test_a_server_that_does_not_say_what_the_model_wrote_does_not_pass(tmp_path):
    with checking(tmp_path, (call(a=1, b=2),), RECORDS[:1], server_type=Silent) as found:
        assert found.failed
        assert "the server does not say what the model wrote for line 1" in found.problems[0]


class Silent:
    """A server of another version, that gives calls without tokens."""

    def __init__(self, server):
        self.url, self._server = server.url, server

    def chat(self, *conversation, **options):
        return replace(self._server.chat(*conversation, **options), raw_text=None, tokens=None)


@pytest.mark.parametrize(("scale", "counts"), [(0.01, False), (20.0, True)])
def test_only_a_clear_choice_of_another_token_counts_as_the_grammar_s(tmp_path, scale, counts):
    """The second best token is written."""
    write_tokenizer(tmp_path)
    model = tiny_llama(layers=1)
    with torch.no_grad():
        model.lm_head.weight.mul_(scale)
    with LlamaCppModel(
        write_llama(tmp_path / "model.gguf", model, tmp_path), context=64, threads=1
    ) as runtime:
        prompt = made(1, "")
        order = runtime.decode(prompt.prompt_ids)[0].argsort()
        assert is_constrained(runtime, prompt, [int(order[-2])]) is counts
        assert is_constrained(runtime, prompt, [int(order[-1])]) is False


def test_a_server_that_ends_in_its_answer_is_said():
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(_answer_half, listening)
        with pytest.raises(DataError, match=r"llama\.cpp's server ended"):
            parse_answer(f"http://127.0.0.1:{listening.getsockname()[1]}", [user("a")], [], "b", end_id=1)
        asked.result()


def _answer_half(listening):
    connection, _ = listening.accept()
    with connection, connection.makefile("rb") as request:
        size = next(int(line.split()[1]) for line in request if line.lower().startswith(b"content-length"))
        while request.readline().strip():
            pass
        request.read(size)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")


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
