"""Accepted values in metadata: BFCL's form, or an error with its place."""

import json

import pytest

from kdfast.errors import DataError
from kdfast.scoring import read_accepted


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("", None),
        ("{}", None),
        ('{"accepted": null}', None),
        ('{"accepted": []}', []),
        ('{"accepted": [{"f": {}}, {"f": {"n": [1, ""]}}]}', [{"f": {}}, {"f": {"n": [1, ""]}}]),
    ],
)
def test_read(metadata, expected):
    assert read_accepted(metadata, "data.jsonl") == expected


@pytest.mark.parametrize(
    "accepted",
    [
        "f",
        {"f": {}},
        ["f"],
        [{}],
        [{"f": {}, "g": {}}],
        [{"f": []}],
        [{"f": {"n": 1}}],
        [{"f": {"n": "x"}}],
        3,
        True,
    ],
)
def test_another_form_names_its_place(accepted):
    with pytest.raises(DataError, match=r"^data\.jsonl:7: metadata\.accepted must") as caught:
        read_accepted(json.dumps({"accepted": accepted}), "data.jsonl", 7)
    assert caught.value.line == 7


def test_a_long_one_is_cut():
    with pytest.raises(DataError) as caught:
        read_accepted(json.dumps({"accepted": "x" * 10_000}), "data.jsonl", 7)
    assert len(str(caught.value)) < 300
