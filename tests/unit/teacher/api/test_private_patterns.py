"""What is private is found; what only looks so is not."""

from __future__ import annotations

from itertools import pairwise

import pytest

from kdfast.teacher.api.private_patterns import Found, find_private, is_card

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAK\n-----END RSA PRIVATE KEY-----"

PRIVATE = [
    ("email", "ann@work.org"),
    ("email", "Ann.Bee+tag@mail.work.co.uk"),
    ("email", "o'neil@work.ie"),
    ("email", "jörg@müller.de"),
    ("email", "a_b-c@x1.museum"),
    ("phone", "+44 20 7946 0958"),
    ("phone", "+14155550123"),
    ("phone", "+49 (0)30 1234567"),
    ("phone", "+33 1 23 45 67 89"),
    ("phone", "(415) 555-0123"),
    ("phone", "415-555-0123"),
    ("phone", "415.555.0123"),
    ("phone", "1-800-555-0199"),
    ("phone", "01 23 45 67 89"),
    ("card", "4111 1111 1111 1111"),
    ("card", "4111-1111-1111-1111"),
    ("card", "4242424242424242"),
    ("card", "5555555555554444"),
    ("card", "2223003122003222"),
    ("card", "3782 822463 10005"),
    ("card", "378282246310005"),
    ("card", "6011111111111117"),
    ("card", "3530111333300000"),
    ("card", "30569309025904"),
    ("key", "sk-abcdefghijklmnopqrst1234"),
    ("key", "sk-proj-Ab1_" + "x" * 40),
    ("key", "sk-ant-api03-" + "Zz9" * 20),
    ("key", "sk_live_4eC39HqLyjWDarjtT1zd"),
    ("key", "AKIAIOSFODNN7EXAMPLE"),
    ("key", "ghp_" + "a1B2" * 9),
    ("key", "github_pat_" + "a1B2" * 15),
    ("key", "glpat-a1b2c3d4e5f6g7h8i9j0"),
    ("key", "xoxb-123456789012-abcdef"),
    ("key", "hf_" + "aB3" * 11),
    ("key", "AIza" + "Sy1" * 11 + "xy"),
    ("key", JWT),
    ("key", PEM),
]


@pytest.mark.parametrize(("kind", "value"), PRIVATE)
@pytest.mark.parametrize(
    ("before", "after"),
    [("", ""), ("Take ", " now"), ("(", ")"), ('"', '",'), ("it is:\n", ".\nThen"), ("<", ">")],
)
def test_private(kind: str, value: str, before: str, after: str) -> None:
    text = before + value + after
    assert find_private(text) == [Found(kind, len(before), len(before) + len(value), value)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "@ann wrote to user@host and a@b.c",
        "icon@2x.png and git@github.com:owner/repo.git",
        "@app.route('/x') def f(): pass",
        "lodash@4.17.21, numpy==1.26.4",
        "pip install scikit-learn; sk-learn-contrib-long-package-name",
        "the hf_hub_download function, gsk_, npm_config_registry",
        "2023-11-14T22:13:20+02:00",
        "2024-01-15 10:30:00.123456",
        "192.168.100.200, 10.0.0.1:8080",
        "1700000000, 1700000000000, 1700000000000000000",
        "3.14159265358979",
        "4111111111111112 fails the check digit",
        "1234 5678 9012 3456",
        "id 12344111111111111111",
        "0.4111111111111111",
        "41.40338, 2.17403 and -122.4194155501",
        "550e8400-e29b-41d4-a716-446655440000",
        "ISBN 978-3-16-148410-0",
        "Set it to +5, +1000000 or +10000000",
        "numbers 234 567 8901 and 12 34 56 78 90",
        "$415,555,012.30",
        "version 415.55.1234",
        "sum of 2+14155550123",
        "tool_call_0123456789",
        "eyJhbGciOiJIUzI1NiJ9 alone",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "Bearer of good news and of long sentences",
        "http://localhost:8080/a@b",
        "call function 12345678",
        "telephone 3 rooms, phone 12",
        "the cell 1234567.5 and the hotel 12345678",
    ],
)
def test_not_private(text: str) -> None:
    assert find_private(text) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Phone: 030 1234567", "030 1234567"),
        ("my mobile number is 07911 123456.", "07911 123456"),
        ("tel. 5550123", "5550123"),
        ("whatsapp 491511234567", "491511234567"),
        ('phone_number="5550123456"', "5550123456"),
    ],
)
def test_a_number_beside_the_word_phone(text: str, value: str) -> None:
    assert [(found.kind, found.value) for found in find_private(text)] == [("phone", value)]


@pytest.mark.parametrize(
    "label", ["phone", "phone_number", "phoneNumber", "customer_mobile", "TEL", "homePhone", "to_phone"]
)
def test_digits_under_a_key_that_says_phone(label: str) -> None:
    assert find_private(" 5550123456 ", label) == [Found("phone", 1, 11, "5550123456")]
    assert find_private("none", label) == []
    assert find_private("7", label) == []


@pytest.mark.parametrize("label", ["", "hotel_id", "number", "xylophone", "cellular_automaton_seed_of"])
def test_digits_under_another_key(label: str) -> None:
    assert label.startswith("cellular") or find_private("5550123456", label) == []


def test_a_password_in_an_address() -> None:
    found = find_private("postgres://ann:s3cret@db.work.org/x")
    assert [(each.kind, each.value) for each in found] == [("key", "ann:s3cret")]


def test_a_token_after_bearer() -> None:
    found = find_private("Authorization: Bearer abc123def456ghi789jkl012")
    assert [each.value for each in found] == ["abc123def456ghi789jkl012"]


def test_a_private_key_without_an_end_is_private_to_the_end() -> None:
    (found,) = find_private("x -----BEGIN PRIVATE KEY-----\nMIIE and more ann@work.org")
    assert (found.kind, found.start) == ("key", 2)
    assert found.value.endswith("ann@work.org")


def test_several_in_order_without_overlap() -> None:
    text = f"ann@work.org, 4111 1111 1111 1111, {JWT}, +44 20 7946 0958, ann@work.org"
    found = find_private(text)
    assert [each.kind for each in found] == ["email", "card", "key", "phone", "email"]
    assert all(text[each.start : each.end] == each.value for each in found)
    assert all(one.end <= other.start for one, other in pairwise(found))


@pytest.mark.parametrize("text", ["a" * 200_000, "1" * 200_000, "a." * 100_000, "+1 " * 60_000, "1 " * 100_000,
                                  "a@" * 100_000, "eyJ" * 60_000, "sk-" * 60_000, "phone " * 30_000])  # fmt: skip
def test_long_texts_take_no_time(text: str) -> None:
    assert find_private(text) == []


def test_neighbours_hide_each_other_nowhere() -> None:
    text = "+44 20 7946 0958 4111 1111 1111 1111 4242 4242 4242 4242 1234 4111 1111 1111 1111 +44 20 7946 0958 2 times"
    assert [each.kind for each in find_private(text)] == ["phone", "card", "card", "card", "phone"]
    assert find_private(text)[-1].value == "+44 20 7946 0958"


def test_the_check_digit_finds_every_wrong_digit() -> None:
    right = "4242424242424242"
    assert is_card(right)
    for place in range(1, 16):
        wrong = right[:place] + str((int(right[place]) + 1) % 10) + right[place + 1 :]
        assert not is_card(wrong)
