"""Requests and their hash."""

from __future__ import annotations

import hashlib

import pytest

from kdfast.teacher.api.journal import Request


def test_a_request_is_known_by_its_canonical_content() -> None:
    made = Request("http://localhost/v1", {"b": 1.5, "a": ["é", None, True]}, sample=2, order=9)
    assert made.content.decode() == (
        '{"body":{"a":["é",null,true],"b":1.5},"endpoint":"http://localhost/v1","sample":2}'
    )
    assert made.hash == hashlib.sha256(made.content).hexdigest()
    assert Request.from_content(made.content, 9) == made


@pytest.mark.parametrize(
    "changed",
    [
        Request("http://example.com/v1", {"a": 1}),
        Request("http://localhost/v1", {"a": 1.0}),
        Request("http://localhost/v1", {"a": 1}, sample=1),
        Request("http://localhost/v1", {"a": 1}, context={"headers": ["x"]}),
    ],
)
def test_all_but_the_order_is_in_the_hash(changed: Request) -> None:
    plain = Request("http://localhost/v1", {"a": 1})
    assert changed.hash != plain.hash
    assert Request("http://localhost/v1", {"a": 1}, order=5).hash == plain.hash
    assert Request.from_content(changed.content) == changed


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1: "a"}, {"a": {None: 1}}, {1, 2}, b"a", "\ud800"]
)
def test_what_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        Request("http://localhost", {"a": [value]})


def test_what_is_nested_too_deeply_is_refused() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        Request("http://localhost", {"a": deep})


@pytest.mark.parametrize("content", [b"{}", b"[]", b"x", b'{"body": {}, "endpoint": "h", "sample": 0}'])
def test_other_content_is_no_request(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Request.from_content(content)
