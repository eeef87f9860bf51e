"""Prompts of llama.cpp's server against training's, on a real server."""

from importlib import resources

import pytest
from tiny_gguf import write_scripted
from tiny_store import TOOLS, message, user, write_records

from kdfast.data import KDDataset
from kdfast.errors import ConfigError
from kdfast.export.parity.conversation import api_messages
from kdfast.export.parity.prompts import check_prompts
from kdfast.export.parity.records import read_records
from kdfast.llama_cpp import serve

TEMPLATE = resources.files("kdfast.templates").joinpath("hermes.jinja").read_text(encoding="utf-8")
PARALLEL = {
    "role": "assistant",
    "content": "Both:",
    "tool_calls": message(a=1, b=2)["tool_calls"] + message(a=3, b=4)["tool_calls"],
}
RESULTS = [{"role": "tool", "content": "3"}, {"role": "tool", "content": '{"sum": 7.0}'}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("prompts")


@pytest.fixture(scope="module")
def server(folder):
    with serve(
        write_scripted(folder / "model.gguf", ("Three.",), TEMPLATE), context=1024, threads=1
    ) as server:
        yield server


def tool(parameters, **more):
    return [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": parameters} | more}
    ]


@pytest.fixture
def check(server, folder, tmp_path):
    def run(*records, template="hermes", tokenizer=folder, waivers=()):
        file = write_records(
            tmp_path / "held_out.jsonl", [{"truth_text": "no"} | record for record in records]
        )
        data = KDDataset(file, tokenizer, 4096, template=template, cache=tmp_path / "cache")
        return check_prompts(server, read_records(data), data.tokenizer, waivers=waivers)

    return run


def test_equal_prompts_pass_with_results_parallel_calls_and_plain_text(check):
    found = check(
        {"messages": [user("1 + 2?")], "tools": TOOLS},
        {"messages": [user("1 + 2, 3 + 4?"), PARALLEL, *RESULTS], "tools": TOOLS},
        {
            "messages": [
                {"role": "system", "content": " be kind "},
                user("a"),
                {"role": "assistant", "content": "b"},
                user("c"),
            ]
        },
        {"prompt": "Say 東京, naïve 😀: "},
        {"messages": [user("What is <|im_end|>?")]},
    )
    assert (found.status, found.problems) == ("passed", ())
    assert found.figures == {
        "records": 5, "compared": 4, "left_out_special": 1, "plain": 1, "equal": 4, "differences": {}, "examples": [],
    }  # fmt: skip


def test_a_float_of_a_schema_is_found_and_can_be_waived(check):
    record = {"messages": [user("a")], "tools": tool({"type": "object", "minimum": 1.0})}
    found = check(record)
    assert found.failed
    assert found.figures["differences"] == {"number": 1}
    (example,) = found.figures["examples"]
    assert example["line"] == 1
    assert '"minimum": 1.0}' in example["trained"]
    assert '"minimum": 1}' in example["runtime"]
    assert "1 prompt differs (number: " in found.problems[0]
    assert check(record, waivers=["number"]).status == "waived"
    assert check(record, waivers=["key-order"]).failed


def test_every_difference_must_be_waived(check):
    records = [
        {"messages": [user("a")], "tools": tool({"type": "object", "minimum": 1.0})},
        {"messages": [user("a")], "tools": [{"name": "f", "parameters": {"type": "object"}}]},
    ]
    found = check(*records, waivers=["number"])
    assert found.failed
    assert found.figures["differences"] == {"keys": 1, "number": 1}
    (problem,) = found.problems
    assert "keys: " in problem
    assert check(*records, waivers=["number", "keys"]).status == "waived"


def test_a_template_changed_by_a_blank_is_found(check, tmp_path):
    changed = tmp_path / "changed.jinja"
    changed.write_text(TEMPLATE.replace("If none fits", "If  none fits"))
    found = check({"messages": [user("a")], "tools": TOOLS}, template=changed)
    assert found.failed
    assert found.figures["differences"] == {"white-space": 1}


def test_another_tokenizer_is_found_though_the_texts_are_equal_and_cannot_be_waived(check, tmp_path):
    import tiny

    found = check(
        {"messages": [user("a weather")], "tools": TOOLS}, tokenizer=tiny.write_tokenizer(tmp_path / "other")
    )
    assert found.failed
    assert found.figures["differences"] == {"tokenizer": 1}
    assert "the ids differ from token" in found.problems[0]
    with pytest.raises(ConfigError, match="cannot accept"):
        check({"messages": [user("a")]}, waivers=["tokenizer"])


def test_what_the_server_refuses_is_a_difference_with_its_words(check, tmp_path):
    loose = tmp_path / "loose.jinja"
    loose.write_text(TEMPLATE.replace("['system', 'user']", "['system', 'user', 'critic']"))
    record = {"messages": [user("a"), {"role": "critic", "content": "hm"}], "tools": TOOLS}
    found = check(record, template=loose)
    assert found.figures["differences"] == {"refused": 1}
    assert "critic" in found.figures["examples"][0]["message"]
    assert check(record, template=loose, waivers=["refused"]).status == "waived"


def test_plain_prompts_alone_do_not_measure_the_template(check):
    found = check({"prompt": "Say it: "}, {"prompt": "Say that: "})
    assert (found.status, found.figures["equal"]) == ("passed", 2)
    assert found.reason == "the chat template is not measured: each record's prompt is plain text"


def test_deep_brackets_in_a_message_are_text(check):
    deep = '{"a": ' * 300 + "1" + "}" * 300
    record = {"messages": [user(deep)], "tools": tool({"type": "object", "minimum": 1.0})}
    found = check(record)
    assert found.figures["differences"] == {"number": 1}


def test_no_record_is_not_measured(server):
    found = check_prompts(server, [], None)
    assert found.status == "not_measured"
    assert "there is none" in found.reason


def test_the_conversation_is_what_a_client_sends():
    assert api_messages([{"role": "user", "content": "a", "name": None}]) == [
        {"role": "user", "content": "a"}
    ]
    made = api_messages([PARALLEL, *RESULTS])
    assert [call["id"] for call in made[0]["tool_calls"]] == ["call00001", "call00002"]
    assert [result["tool_call_id"] for result in made[1:]] == ["call00001", "call00002"]
    blank = {"role": "assistant", "tool_calls": [{"id": "x", "function": {"name": "f", "arguments": " "}}]}
    assert api_messages([blank])[0]["tool_calls"] == [
        {"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]
