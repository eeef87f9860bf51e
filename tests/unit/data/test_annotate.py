import json

import numpy as np
import pytest
import tiny_store
from defaults import build_store
from tiny_store import assistant, build, call, message, user

from kdfast import _rust
from kdfast.errors import DataError


def text_of(directory, row, span):
    return _rust.Tokenizer.from_file(directory).decode(row["ids"][span[0] : span[1]].tolist())


def only_row(directory, record, **options):
    store = build(directory, [record], **options)
    assert len(store) == 1
    return store.row(0)


def texts(directory, row, name):
    return [text_of(directory, row, span) for span in row["spans"][name]]


def test_every_span_decodes_to_its_text(tmp_path):
    row = only_row(
        tmp_path, {"prompt": "Add: ", "teacher_text": "I add. " + call(a=1, b=22), "tools": tiny_store.TOOLS}
    )
    names = ["tool_call", "tool_body", "tool_name", "tool_args", "arg_keys", "arg_values", "turn_end"]
    wanted = [
        [call(a=1, b=22)],
        ['{"name": "add", "arguments": {"a": 1, "b": 22}}'],
        ["add"],
        ['{"a": 1, "b": 22}'],
        ["a", "b"],
        ["1", "22"],
        ["<|im_end|>"],
    ]
    for name, sources in zip(names, wanted, strict=True):
        covered = texts(tmp_path, row, name)
        assert len(covered) == len(sources)
        # A token may reach beyond the span at either end, but never by more than itself.
        assert all(source in cover for source, cover in zip(sources, covered, strict=True)), name


def test_messages_are_rendered_and_the_answer_ends_its_turn(tmp_path):
    messages = [user("1 + 2?")]
    row = only_row(
        tmp_path, {"messages": messages, "tools": tiny_store.TOOLS, "teacher_message": message(a=1, b=2)}
    )
    rendered = tiny_store.hermes().render(
        json.dumps([*messages, message(a=1, b=2)]), json.dumps(tiny_store.TOOLS), False
    )
    assert text_of(tmp_path, row, (0, len(row["ids"]))) == rendered.removesuffix("\n")
    assert text_of(tmp_path, row, (row["response_start"], len(row["ids"]))) == call(a=1, b=2) + "<|im_end|>"


def test_a_message_beside_a_prompt_is_rendered_too(tmp_path):
    row = only_row(tmp_path, {"prompt": "p ", "truth_message": message(a=1, b=2)})
    assert text_of(tmp_path, row, (row["response_start"], len(row["ids"]))) == call(a=1, b=2) + "<|im_end|>"
    assert row["source"] == 1


def test_prompt_and_answer_are_encoded_apart(tmp_path):
    store = build(tmp_path, [{"prompt": "What is the wea", "teacher_text": "ther in Paris"}])
    tokenizer, row = _rust.Tokenizer.from_file(tmp_path), store.row(0)
    end = [tokenizer.special_id("<|im_end|>")]
    assert (
        row["ids"].tolist() == tokenizer.encode("What is the wea") + tokenizer.encode("ther in Paris") + end
    )
    assert store.prompt_ids(0).tolist() == tokenizer.encode("What is the wea")


def test_two_rows_where_truth_and_teacher_differ(tmp_path):
    record = {
        "prompt": "p ",
        "tools": tiny_store.TOOLS,
        "teacher_text": "I cannot.",
        "truth_text": call(a=1, b=2),
    }
    store = build(tmp_path, [record, record | {"truth_text": "I cannot."}])
    rows = [store.row(index) for index in range(len(store))]
    assert [(row["line"], row["source"]) for row in rows] == [(1, 0), (1, 1), (2, 0)]
    assert [row["tool_should_be_used"] for row in rows] == [False, True, False]
    assert rows[1]["validated_arguments"] == '{"a": 1, "b": 2}'


def test_given_fields_are_kept(tmp_path):
    record = {
        "prompt": "p ",
        "teacher_text": call(a=1),
        "tools": tiny_store.TOOLS,
        "tool_should_be_used": False,
        "required_fields_present": False,
        "teacher_prefix_ids": [7, 8, 9],
        "validated_arguments": {"x": [1, 2]},
        "metadata": {"id": "é", "n": 1.50},
        "unknown_key": 12345678901234567890123,
    }
    row = only_row(tmp_path, record, invalid_calls="keep")
    assert (row["tool_should_be_used"], row["required_fields_present"]) == (False, False)
    assert row["teacher_prefix_ids"].tolist() == [7, 8, 9]
    assert json.loads(row["validated_arguments"]) == {"x": [1, 2]}
    kept = json.loads(row["metadata"])
    assert kept["id"] == "é"
    assert kept["unknown_key"] == 12345678901234567890123
    assert json.loads(row["tools"]) == tiny_store.TOOLS


def test_derived_fields(tmp_path):
    row = only_row(
        tmp_path, {"prompt": "p ", "teacher_text": "So: " + call(a=1, b=2), "tools": tiny_store.TOOLS}
    )
    first, last = row["spans"]["tool_call"][0]
    assert row["teacher_prefix_ids"].tolist() == row["ids"][first : min(last, first + 25)].tolist()
    assert row["tool_should_be_used"]
    assert row["required_fields_present"]
    assert row["teacher_attention_mask"] is None
    assert row["teacher_length"] == row["response_length"] == len(row["ids"]) - row["response_start"]


@pytest.mark.parametrize(
    ("answer", "should", "present"),
    [
        (call(a=1, b=2), True, True),
        (call(a=1), True, False),
        (call(a="x", b=2), True, True),
        ("none", False, True),
        (call(a=1) + call(a=1, b=2), True, False),
    ],
)
def test_what_counts_as_a_due_call_and_a_complete_one(tmp_path, answer, should, present):
    record = {"prompt": "p ", "teacher_text": answer, "tools": tiny_store.TOOLS}
    row = only_row(tmp_path, record, invalid_calls="keep")
    assert (row["tool_should_be_used"], row["required_fields_present"]) == (should, present)
    valid = call(a=1, b=2)
    assert (row["validated_arguments"] is not None) == (valid in answer)
    assert row["call_valid"] == (answer in ("none", valid))


def test_a_call_that_breaks_its_schema_is_an_error_unless_it_is_kept(tmp_path):
    record = {"prompt": "p ", "teacher_text": call(a=1), "tools": tiny_store.TOOLS}
    with pytest.raises(
        DataError, match=r"data\.jsonl:1: .*breaks its tool's schema \(add: .*data\.invalid_calls"
    ):
        only_row(tmp_path, record)
    tokenizer = _rust.Tokenizer.from_file(tmp_path)
    kept = build_store(
        tmp_path / "data.jsonl", tmp_path / "cache", tokenizer, tiny_store.hermes(), invalid_calls="keep"
    )
    assert (kept.rows, kept.invalid_calls) == (1, 1)


def test_a_cut_answer_has_no_turn_end(tmp_path):
    row = only_row(tmp_path, {"prompt": "p ", "teacher_text": "cut he", "finish_reason": "length"})
    assert text_of(tmp_path, row, (row["response_start"], len(row["ids"]))) == "cut he"
    assert row["spans"]["turn_end"].shape == (0, 2)
    assert row["finish_reason"] == "length"


def test_a_given_mask_covers_the_row_or_the_response(tmp_path):
    plain = only_row(tmp_path, {"prompt": "p ", "teacher_text": "yes"})
    size, start = len(plain["ids"]), plain["response_start"]
    short = only_row(
        tmp_path,
        {"prompt": "p ", "teacher_text": "yes", "teacher_attention_mask": [0] + [1] * (size - start - 1)},
    )
    assert short["teacher_attention_mask"].tolist() == [0] * (start + 1) + [1] * (size - start - 1)
    assert short["teacher_length"] == size - start - 1
    whole = only_row(tmp_path, {"prompt": "p ", "teacher_text": "yes", "teacher_attention_mask": [1] * size})
    assert whole["teacher_length"] == size
    with pytest.raises(
        DataError, match=rf"\({size}\) or of the response \({size - start}\), found {size + 1}"
    ):
        only_row(
            tmp_path, {"prompt": "p ", "teacher_text": "yes", "teacher_attention_mask": [1] * (size + 1)}
        )


def test_all_assistant_turns_are_supervised_on_demand_but_no_tool_result(tmp_path):
    messages = [
        user("q1"),
        message(a=1, b=1),
        {"role": "tool", "content": "2"},
        assistant("Two."),
        user("q2"),
    ]
    record = {"messages": messages, "tools": tiny_store.TOOLS, "teacher_text": "End."}
    row = only_row(tmp_path, record, supervise="all")
    covered = [text_of(tmp_path, row, span) for span in row["supervised"]]
    assert covered == [call(a=1, b=1) + "<|im_end|>", "Two.<|im_end|>", "End.<|im_end|>"]
    assert texts(tmp_path, row, "tool_name") == ["add"]
    last = only_row(tmp_path, record)
    assert last["ids"].tolist() == row["ids"].tolist()
    assert last["supervised"].tolist() == [[row["response_start"], len(row["ids"])]]


def test_a_template_that_rewrites_the_past_cannot_supervise_all_turns(tmp_path):
    source = tiny_store.HERMES.read_text(encoding="utf-8")
    counting = _rust.ChatTemplate("{{ messages | length }}" + source)
    build(tmp_path, [{"prompt": "p", "teacher_text": "t"}])
    path = tiny_store.write_records(
        tmp_path / "talk.jsonl", [{"messages": [user("a"), assistant("b"), user("c")], "teacher_text": "d"}]
    )
    tokenizer = _rust.Tokenizer.from_file(tmp_path)
    with pytest.raises(DataError, match="not stable turn by turn") as caught:
        build_store(path, tmp_path / "cache", tokenizer, counting, supervise="all")
    assert (caught.value.source, caught.value.line) == (str(path), 1)
    report = build_store(path, tmp_path / "cache", tokenizer, counting)
    assert _rust.TokenStore.open(report.path).row(0)["drop_groups"].shape == (0, 2)


def test_middle_turns_drop_oldest_first_and_everything_moves_along(tmp_path):
    talk = [{"role": "system", "content": "S."}]
    for number in range(4):
        talk += [
            user(f"question {number}"),
            message(a=number, b=1),
            {"role": "tool", "content": "r"},
            assistant("Fine."),
        ]
    record = {"messages": [*talk, user("last?")], "tools": tiny_store.TOOLS, "teacher_text": call(a=9, b=9)}
    store = build(tmp_path, [record], supervise="all")
    whole = store.row(0)
    assert len(whole["drop_groups"]) == 4
    sizes = [len(whole["ids"])]
    for _, group in enumerate(whole["drop_groups"]):
        sizes.append(sizes[-1] - int(group[1] - group[0]))
    for dropped, size in enumerate(sizes):
        assert store.fit(size).tolist() == [size]
        cut = store.row(0, max_length=size)
        shorter = record | {"messages": [talk[0], *talk[1 + 4 * dropped :], user("last?")]}
        alone = build(tmp_path / str(dropped), [shorter], supervise="all").row(0)
        for name in ("ids", "supervised", "drop_groups"):
            assert np.array_equal(cut[name], alone[name]), (dropped, name)
        assert (cut["response_start"], cut["response_length"]) == (
            alone["response_start"],
            alone["response_length"],
        )
        for name, spans in alone["spans"].items():
            assert np.array_equal(cut["spans"][name], spans), (dropped, name)
    assert store.fit(sizes[-1] - 1).tolist() == [-1]
    assert store.fit(sizes[0] - 1).tolist() == [sizes[1]]


def test_lossy_text_rejects_an_answer_and_counts_a_prompt(tmp_path):
    build(tmp_path, [{"prompt": "p", "teacher_text": "t"}])
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    document["normalizer"] = {"type": "Replace", "pattern": {"String": "Q"}, "content": "q"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    tokenizer = _rust.Tokenizer.from_file(tmp_path)
    path = tiny_store.write_records(tmp_path / "q.jsonl", [{"prompt": "a Q", "teacher_text": "b"}])
    report = build_store(path, tmp_path / "cache", tokenizer, tiny_store.hermes())
    assert report.prompt_lossy == 1
    assert _rust.TokenStore.open(report.path).row(0)["prompt_lossy"]
    path = tiny_store.write_records(
        path, [{"prompt": "a", "teacher_text": "b"}, {"prompt": "a", "teacher_text": "ab Q"}]
    )
    with pytest.raises(DataError, match="its byte 3 is lost or changed") as caught:
        build_store(path, tmp_path / "cache", tokenizer, tiny_store.hermes())
    assert caught.value.line == 2


def test_a_template_whose_turn_ends_without_a_special_token_is_refused(tmp_path):
    build(tmp_path, [{"prompt": "p", "teacher_text": "t"}])
    plain = _rust.ChatTemplate("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    tokenizer = _rust.Tokenizer.from_file(tmp_path)
    with pytest.raises(DataError, match="special token"):
        build_store(tmp_path / "data.jsonl", tmp_path / "cache", tokenizer, plain)
