import json

import naive_annotate
import pytest
import tiny
import tiny_store
from hypothesis import given, settings
from hypothesis import strategies as st

from kdfast import _rust

VISIBLE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(str.strip)
VALUES = st.one_of(
    st.integers(-(10**9), 10**9), st.booleans(), st.none(), VISIBLE, st.lists(st.integers(0, 9), max_size=3)
)
ARGUMENTS = st.dictionaries(VISIBLE, VALUES, max_size=4)


def written(name, arguments, indent):
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False, indent=indent)
    return f"<tool_call>\n{body}\n</tool_call>"


CALLS = st.builds(written, VISIBLE, ARGUMENTS, st.sampled_from([None, 1]))
ANSWERS = st.lists(st.one_of(CALLS, VISIBLE), min_size=1, max_size=4).map("\n".join).filter(str.strip)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny.write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def rows_of(directory, records, **options):
    store = tiny_store.build(directory, records, **options)
    return [store.row(index) for index in range(len(store))]


@pytest.mark.slow
@settings(max_examples=60)
@given(prompt=VISIBLE, answer=ANSWERS, cut=st.booleans())
def test_equal_to_the_naive_annotation(directory, prompt, answer, cut):
    record = {"prompt": prompt, "teacher_text": answer} | ({"finish_reason": "length"} if cut else {})
    (row,) = rows_of(directory, [record])
    tokenizer = tiny.Tokenizer.from_file(str(directory / "tokenizer.json"))
    naive = naive_annotate.annotate(tokenizer, prompt, answer, None if cut else "<|im_end|>")
    assert row["ids"].tolist() == naive["ids"]
    assert (row["response_start"], row["response_length"]) == (
        naive["response_start"],
        naive["response_length"],
    )
    assert row["spans"]["tool_call"].tolist() == naive["tool_call"]


@pytest.mark.slow
@settings(max_examples=60)
@given(answer=ANSWERS)
def test_every_span_decodes_to_text_that_covers_its_source(directory, answer):
    (row,) = rows_of(directory, [{"prompt": "p ", "teacher_text": answer}])
    tokenizer = _rust.Tokenizer.from_file(directory)
    pieces = [tokenizer.token_bytes(int(token)) for token in row["ids"]]
    raw, start = answer.encode(), row["response_start"]
    ends = [sum(map(len, pieces[start : index + 1])) for index in range(start, len(pieces))]
    begins = [end - len(piece) for end, piece in zip(ends, pieces[start:], strict=True)]

    def expected(span):
        first, last = (len(answer[:at].encode()) for at in span)
        touched = [
            start + t for t, (b, e) in enumerate(zip(begins, ends, strict=True)) if b < last and e > first
        ]
        assert raw[first:last] in b"".join(pieces[t] for t in touched)
        return [touched[0], touched[-1] + 1]

    calls = _rust.find_tool_calls(answer)
    for name, spans in {
        "tool_call": [call.span for call in calls],
        "tool_body": [call.body for call in calls],
        "tool_name": [call.name_span for call in calls],
        "tool_args": [call.arguments_span for call in calls],
        "arg_keys": [span for call in calls for span in call.key_spans],
        "arg_values": [span for call in calls for span in call.value_spans],
    }.items():
        assert row["spans"][name].tolist() == [expected(span) for span in spans], name
        inside = row["spans"][name]
        assert ((inside >= start) & (inside <= start + row["response_length"])).all()


MESSAGES = st.lists(
    st.tuples(
        VISIBLE,
        st.lists(
            st.one_of(VISIBLE.map(tiny_store.assistant), st.just(tiny_store.message(a=1, b=2))), max_size=2
        ),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40)
@given(turns=MESSAGES, system=st.booleans(), tools=st.booleans(), supervise=st.sampled_from(["last", "all"]))
def test_a_conversation_is_its_rendering_and_drops_groups_as_if_they_had_never_been(
    directory, turns, system, tools, supervise
):
    head = [{"role": "system", "content": "S."}] if system else []
    groups = [[tiny_store.user(question), *answers] for question, answers in turns]
    groups[-1] = groups[-1][:1]
    extra = {"tools": tiny_store.TOOLS} if tools else {}

    def record(kept):
        return {"messages": head + [m for group in kept for m in group], "teacher_text": "Done.", **extra}

    store = tiny_store.build(directory, [record(groups[n:]) for n in range(len(groups))], supervise=supervise)
    whole = store.row(0)
    text = _rust.Tokenizer.from_file(directory).decode(whole["ids"].tolist())
    rendered = tiny_store.hermes().render(
        json.dumps(record(groups)["messages"]), json.dumps(tiny_store.TOOLS) if tools else None, True
    )
    assert text == rendered + "Done.<|im_end|>"
    assert len(whole["drop_groups"]) == len(groups) - 1
    for index in range(len(groups)):
        alone = store.row(index)
        cut = store.row(0, max_length=len(alone["ids"]))
        assert cut["ids"].tolist() == alone["ids"].tolist()
        assert cut["supervised"].tolist() == alone["supervised"].tolist()


@settings(max_examples=10)
@given(answers=st.lists(ANSWERS, min_size=1, max_size=30))
def test_threads_do_not_change_a_byte(directory, answers):
    records = [{"prompt": f"{n}: ", "teacher_text": answer} for n, answer in enumerate(answers)]
    store = tiny_store.build(directory, records, threads=1)
    first = store.path.read_bytes()
    store.path.unlink()
    assert tiny_store.build(directory, records, threads=3).path.read_bytes() == first
