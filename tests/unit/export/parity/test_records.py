"""The records that parity compares: what training made of them, and special tokens in their content."""

import tiny
from tiny_store import RECORDS, TOOLS, call, message, user, write_records

from kdfast.data import KDDataset
from kdfast.export.parity.records import read_records


def dataset(directory, records, **options):
    tiny.write_tokenizer(directory)
    file = write_records(directory / "held_out.jsonl", records)
    settings = {"shapes": [512, 1024], "template": "hermes", "cache": directory / "cache"} | options
    return KDDataset(file, directory, **settings)


def test_a_record_holds_the_prompt_and_the_right_answer(tmp_path):
    data = dataset(tmp_path, RECORDS)
    records = read_records(data)
    assert [record.line for record in records] == [1, 2, 3, 4, 5]
    assert [record.plain_prompt for record in records] == [False, False, True, False, True]
    assert records[3].answer == call(a=2, b=2)
    assert records[4].answer == "this answer was"  # cut: it has no turn end
    for record in records:
        assert data.encode(record.text) == record.prompt_ids
        assert data.tokenizer.decode(list(record.ids)).startswith(record.text + record.answer)
        assert len(record.ids) <= record.shape
    assert records[2].text == RECORDS[2]["prompt"]
    assert not any(record.special_in_content for record in records)


def test_other_dialects_come_as_training_reads_them(tmp_path):
    old = {
        "role": "assistant",
        "content": None,
        "function_call": {"name": "add", "arguments": '{"a": 1, "b": 1}'},
    }
    function = {"name": "add", "inputSchema": TOOLS[0]["function"]["parameters"]}
    messages = [
        {"role": "human", "content": "1 + 1?"},
        old,
        {"role": "function", "name": "add", "content": "2"},
    ]
    answer = {"role": "assistant", "content": "It is 2."}
    (record,) = read_records(dataset(tmp_path, [{"messages": [*messages, answer], "tools": [function]}]))
    assert [message["role"] for message in record.messages] == ["user", "assistant", "tool"]
    assert record.messages[1]["tool_calls"][0]["function"]["name"] == "add"
    assert "parameters" in record.tools[0]
    assert record.answer == "It is 2."


def test_special_tokens_in_content_are_found_only_where_training_has_them_as_text(tmp_path):
    records = [
        {"messages": [user("What is <|im_end|> for?")], "truth_text": "It ends a turn."},
        {"messages": [user("What is im_end for?")], "truth_text": "It ends a turn."},
    ]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    escaped = read_records(dataset(tmp_path / "a", records))
    assert [record.special_in_content for record in escaped] == [True, False]
    allowed = read_records(dataset(tmp_path / "b", records, content_tokens="allow"))
    assert [record.special_in_content for record in allowed] == [False, False]


def test_of_two_rows_that_with_the_right_answer_is_taken_and_the_count_is_kept(tmp_path):
    record = {
        "messages": [user("1 + 2?")],
        "tools": TOOLS,
        "teacher_text": "3",
        "truth_message": message(a=1, b=2),
    }
    records = read_records(dataset(tmp_path, [record] * 3), count=2)
    assert [(record.line, record.answer) for record in records] == [(1, call(a=1, b=2)), (2, call(a=1, b=2))]


def test_bad_lines_that_were_set_aside_are_no_records(tmp_path):
    records = [{"prompt": "a", "truth_text": "b"}, {"prompt": "a"}, {"prompt": "c", "truth_text": "d"}]
    data = dataset(tmp_path, records, on_error="quarantine", max_rejected_fraction=0.5)
    assert [record.line for record in read_records(data)] == [1, 3]
