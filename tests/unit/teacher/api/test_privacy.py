"""A record's private texts are counted and replaced, everywhere in it and consistently."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kdfast.teacher.api.privacy import Redactor, count_private, summary

CARD = 4111111111111111


def test_a_whole_record() -> None:
    arguments = '{ "to":"ann@work.org",  "text": "\\nbob@work.org", "x": 1.10, "card": 4111111111111111 }'
    record = {
        "messages": [
            {"role": "user", "content": "I am Ann@Work.org, card 4111 1111 1111 1111"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"function": {"name": "f", "arguments": arguments}}],
            },
            {"role": "tool", "content": [{"type": "text", "text": "sent to bob@work.org"}]},
        ],
        "n": 3,
        "card": CARD,
        "flag": True,
    }
    before = copy.deepcopy(record)
    redactor = Redactor()
    redacted = redactor.redact(record)
    assert record == before
    assert redacted == {
        "messages": [
            {"role": "user", "content": "I am [EMAIL_1], card [CARD_1]"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "function": {
                            "name": "f",
                            "arguments": '{ "to":"[EMAIL_1]",  "text": "\\n[EMAIL_2]", "x": 1.10, "card": "[CARD_1]" }',
                        }
                    }
                ],
            },
            {"role": "tool", "content": [{"type": "text", "text": "sent to [EMAIL_2]"}]},
        ],
        "n": 3,
        "card": "[CARD_1]",
        "flag": True,
    }
    assert redactor.counts == count_private(record) == {"email": 4, "card": 3}
    assert count_private(redacted) == {}


def test_json_in_json_in_json() -> None:
    inner = json.dumps({"to": "ann@work.org", "é": "\n"})
    outer = json.dumps([json.dumps({"inner": inner})])
    redacted = Redactor().redact(outer)
    assert json.loads(json.loads(json.loads(redacted)[0])["inner"]) == {"to": "[EMAIL_1]", "é": "\n"}


def test_nothing_private_changes_nothing() -> None:
    text = '{"a":  1.0,"b":"\\u00e9", "t": 1700000000000000}'
    assert Redactor().redact(text) == text
    assert Redactor().redact("{not json") == "{not json"


def test_keys_and_labels() -> None:
    record = {"ann@work.org": 1, "phone": "5550123456", "phones": ["5550123456"], "mobile": ["5550123456"]}
    assert Redactor().redact(record) == {
        "[EMAIL_1]": 1,
        "phone": "[PHONE_1]",
        "phones": ["5550123456"],
        "mobile": ["[PHONE_1]"],
    }
    text = '{"ann@work.org" : 1, "phone" : "5550123456"}'
    assert Redactor().redact(text) == '{"[EMAIL_1]" : 1, "phone" : "[PHONE_1]"}'


def test_the_same_number_in_two_ways_of_writing() -> None:
    assert (
        Redactor().redact("+1 415-555-0123, +14155550123, +14155550124") == "[PHONE_1], [PHONE_1], [PHONE_2]"
    )


def test_a_placeholder_that_the_record_has_itself() -> None:
    assert Redactor().redact(["[EMAIL_1]", "ann@work.org"]) == ["[EMAIL_1]", "[EMAIL_2]"]


def test_a_record_does_not_depend_on_others() -> None:
    assert Redactor().redact("bob@work.org") == Redactor().redact("ann@work.org") == "[EMAIL_1]"


def test_counts_in_words() -> None:
    assert (
        summary(count_private("ann@work.org 4111 1111 1111 1111 bob@work.org"))
        == "2 e-mail addresses, 1 card number"
    )
    assert summary({}) == ""


private = st.sampled_from(["ann@work.org", "4111 1111 1111 1111", "+44 20 7946 0958", "AKIAIOSFODNN7EXAMPLE"])
texts = st.lists(st.one_of(private, st.text('ab \n"\\é{}[]:,', max_size=5)), max_size=4).map(" ".join)
records = st.recursive(
    texts | st.integers() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        | inner.map(lambda value: json.dumps([value]))
    ),
    max_leaves=8,
)


@given(records)
def test_nothing_private_is_left_and_the_shape_stays(record: Any) -> None:
    redactor = Redactor()
    redacted = redactor.redact(record)
    assert count_private(redacted) == {}
    written = json.dumps(redacted)
    for value in ("ann@work.org", "4111 1111", "7946 0958", "AKIAIOSFODNN7EXAMPLE"):
        assert value not in written
    assert type(redacted) is type(record)
    if not redactor.counts:
        assert redacted == record
