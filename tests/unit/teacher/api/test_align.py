"""Log-probabilities of servers, in every form that they write, become a record's `teacher_topk` or a reason."""

from __future__ import annotations

import json
import math
import random
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from server_logprobs import (
    BY_BYTES,
    BY_ID,
    BY_TEXT,
    DIALECTS,
    Dialect,
    Json,
    Said,
    answers,
    llama_chat,
    llama_entries,
    old_llama,
    plain_completion,
    text_of,
    vllm_completion_ids,
    vllm_ids,
)
from tiny import write_tokenizer

from kdfast._rust import Tokenizer
from kdfast.data import KDDataset, collate_kd_batch
from kdfast.teacher.api.align import teacher_topk

END = "<|im_end|>"
OTHERS = "tokens that are not those of data.tokenizer: "


@cache
def tokenizer(vocab_size: int = 512, backwards: bool = False) -> Tokenizer:
    """The tiny tokenizer; `backwards`: with the same tokens, and the ids of the ordinary ones in reverse."""
    with TemporaryDirectory() as folder:
        file = write_tokenizer(Path(folder), vocab_size) / "tokenizer.json"
        document = json.loads(file.read_text())
        if backwards:
            vocab = document["model"]["vocab"]
            most, special = len(vocab) - 1, {token["id"] for token in document["added_tokens"]}
            for token, number in vocab.items():
                vocab[token] = number if number in special else most + len(special) - number
            file.write_text(json.dumps(document))
        return Tokenizer.from_file(file)


# ------------------------------------------------------------------ the slow and obvious twin


@cache
def pieces(of: Tokenizer) -> list[bytes]:
    return [of.token_bytes(token) for token in range(of.vocab_size)]


def naive(said: list[Said], of: Tokenizer, dialect: Dialect) -> list[dict[int, float]]:
    """What can be known of each position in this dialect; every token is looked for in the whole vocabulary."""
    every = pieces(of)
    result = []
    for one in said:
        known = {}
        for token, logprob in one.top.items():
            data = every[token]
            named = every.count(data) == 1 and data not in (b"<|endoftext|>", b"<|im_start|>", END.encode())
            if dialect in BY_TEXT:
                named = named and "\ufffd" not in data.decode(errors="replace")
            if token == one.chosen and dialect is not old_llama:
                named = True
            if named or dialect in BY_ID:
                known[token] = logprob
        if dialect is not old_llama:
            known[one.chosen] = one.logprob
        result.append(known)
    return result


def read(result: tuple[Json | None, str]) -> list[dict[int, float]]:
    topk, reason = result
    assert topk is not None, reason
    assert reason == ""
    assert all(len(ids) == len(set(ids)) for ids in topk["ids"])
    pairs = zip(topk["ids"], topk["logprobs"], strict=True)
    return [dict(zip(ids, logprobs, strict=True)) for ids, logprobs in pairs]


letters = st.sampled_from('abc Paris{}"\n:,1290éï東😀<>|') | st.characters(
    codec="utf-8", exclude_characters="\ufffd"
)
texts = st.lists(
    st.text(letters, min_size=1, max_size=8)
    | st.sampled_from(["What is the weather", '{"name": "add"', END]),
    min_size=1,
    max_size=6,
).map("".join)
seeds = st.integers(0, 2**32)


@given(st.sampled_from([*BY_ID, *BY_BYTES]), texts, seeds, st.sampled_from([300, 512]))
def test_a_server_with_the_same_tokenizer_gives_its_ids_and_numbers_back(
    dialect: Dialect, text: str, seed: int, vocab_size: int
) -> None:
    here = tokenizer(vocab_size)
    said = answers(here.encode(text), here, seed)
    assert read(teacher_topk(dialect(said, here), text, here)) == naive(said, here, dialect)


@given(st.sampled_from(BY_TEXT), texts, seeds)
def test_texts_alone_do_where_every_token_is_text(dialect: Dialect, text: str, seed: int) -> None:
    here = tokenizer()
    said = answers(here.encode(text), here, seed)
    result = teacher_topk(dialect(said, here), text, here)
    if any("\ufffd" in text_of(one.chosen, here) for one in said):
        assert result[0] is None
        assert result[1].startswith(OTHERS)
        assert result[1].endswith("ask for ids (vLLM: return_tokens_as_token_ids in api.extra_body)")
    elif dialect is old_llama and not any(naive(said, here, dialect)):
        assert result[0] is None
    else:
        for found, known in zip(read(result), naive(said, here, dialect), strict=True):
            assert found == pytest.approx(known)


@given(st.sampled_from([*BY_ID, *BY_BYTES]), texts, seeds, st.sampled_from([(300, False), (512, True)]))
def test_tokens_of_another_tokenizer_never_align(
    dialect: Dialect, text: str, seed: int, there: tuple[int, bool]
) -> None:
    here, other = tokenizer(), tokenizer(*there)
    ids = other.encode(text)
    # Ids that are the same by chance: nothing shows that the others are not (but for bytes, where a server gives both).
    assume(not (there[1] and dialect in BY_ID and ids == here.encode(text)))
    said = answers(ids, other, seed)
    result = teacher_topk(dialect(said, other), text, here)
    same_pieces = [pieces(other)[one] for one in ids] == [pieces(here)[one] for one in here.encode(text)]
    if same_pieces and (dialect in BY_BYTES or ids == here.encode(text)):
        number = {one: pieces(here).index(data) for one, data in enumerate(pieces(other))}
        mapped = [
            Said(number[one.chosen], one.logprob, {number[token]: lp for token, lp in one.top.items()})
            for one in said
        ]
        assert read(result) == naive(mapped, here, dialect)
    else:
        assert result[0] is None
        assert result[1].startswith(OTHERS)


@given(st.sampled_from(DIALECTS), texts, seeds)
def test_one_other_token_is_enough(dialect: Dialect, text: str, seed: int) -> None:
    here = tokenizer()
    ids, rng = here.encode(text), random.Random(seed)
    place = rng.randrange(len(ids))
    ids[place] = rng.choice([token for token in range(here.vocab_size) if token != ids[place]])
    result, reason = teacher_topk(dialect(answers(ids, here, seed), here), text, here)
    assert result is None
    assert reason.startswith(OTHERS)


@given(st.sampled_from([*BY_ID, *BY_BYTES]), texts, texts, st.integers(0, 2), seeds)
def test_reasoning_before_and_ends_after_are_left_out(
    dialect: Dialect, before: str, text: str, ends: int, seed: int
) -> None:
    assume(text.replace(END, ""))
    here = tokenizer()
    start, ids = len(here.encode(before)), here.encode(text)
    said = answers([*here.encode(before), *ids, *[2] * ends], here, seed)
    expected = naive(said, here, dialect)[start : start + len(ids)]
    assert read(teacher_topk(dialect(said, here), text, here)) == expected


# ------------------------------------------------------------------ single cases

HERE = tokenizer()


def token(text: str) -> int:
    (number,) = HERE.encode(text)
    return number


def of_a(*others: tuple[Any, Any], own: Any = -1.0) -> Json:
    """The answer "a", with these alternatives."""
    top = [{"token": name, "logprob": logprob} for name, logprob in others]
    return {"logprobs": {"content": [{"token": "a", "logprob": own, "top_logprobs": top}]}}


A, B = token("a"), token("b")
LEFT_OUT = [None, -9999.0, -9999, -math.inf, math.nan, -3.4028234663852886e38, True, "-1.0", -(10**400)]


@pytest.mark.parametrize("number", LEFT_OUT)
def test_what_is_no_number_is_left_out(number: Any) -> None:
    assert read(teacher_topk(of_a(("b", number)), "a", HERE)) == [{A: -1.0}]
    assert read(teacher_topk(of_a(("b", -2.0), own=number), "a", HERE)) == [{B: -2.0}]
    result, reason = teacher_topk(of_a(own=number), "a", HERE)
    assert (result, reason) == (
        None,
        "no log-probabilities: the server names tokens, and gives no number for any of them",
    )


def test_a_position_without_numbers_among_others_is_an_empty_list() -> None:
    said = {"tokens": ["a", "b"], "token_logprobs": [None, -0.5], "top_logprobs": [None, {"a": -1.5}]}
    assert teacher_topk({"logprobs": said}, "ab", HERE) == (
        {"ids": [[], [A, B]], "logprobs": [[], [-1.5, -0.5]]},
        "",
    )


def test_an_id_that_is_there_twice_is_kept_once() -> None:
    found = of_a(("b", -2.0), ("b", -3.0), ("a", -1.5), own=-1.0)
    assert read(teacher_topk(found, "a", HERE)) == [{B: -2.0, A: -1.5}]


@pytest.mark.parametrize("name", ["", "\ufffd", END, "no single token", None, 3])
def test_an_alternative_that_is_no_single_token_stays_in_the_tail(name: Any) -> None:
    assert read(teacher_topk(of_a((name, -2.0)), "a", HERE)) == [{A: -1.0}]


def test_an_alternative_whose_id_and_bytes_contradict_each_other_stays_in_the_tail() -> None:
    found = of_a(("b", -2.0))
    found["logprobs"]["content"][0]["top_logprobs"][0]["id"] = token("c")
    assert read(teacher_topk(found, "a", HERE)) == [{A: -1.0}]


@pytest.mark.parametrize(
    ("own", "other", "fits"),
    [
        (0.0, -6.0, True),
        (0.004, -20.0, True),
        (0.0, -5.0, False),
        (0.006, -20.0, False),
        (1e300, -1.0, False),
    ],
)
def test_nothing_is_renormalised_and_too_much_is_refused(own: float, other: float, fits: bool) -> None:
    result = teacher_topk(of_a(("b", other), own=own), "a", HERE)
    if fits:
        assert read(result) == [{B: other, A: own}]
    else:
        assert result[0] is None
        assert result[1].startswith("no natural logarithms: the probabilities of token 0 sum to ")


def test_ids_that_are_not_in_the_vocabulary_show_another_tokenizer() -> None:
    said = [Said(A, -1.0, {HERE.vocab_size: -2.0})]
    for dialect in (vllm_ids, vllm_completion_ids):
        result = teacher_topk(dialect(said, HERE), "a", HERE)
        assert result == (None, f"{OTHERS}there are 487 here, and the server gives the id 487")


def test_ids_of_the_choice_name_the_drawn_tokens() -> None:
    text = "東"
    said = answers(HERE.encode(text), HERE, 3)
    lost = plain_completion(said, HERE)
    assert teacher_topk(lost, text, HERE)[0] is None
    found = read(teacher_topk(lost | {"token_ids": [one.chosen for one in said]}, text, HERE))
    assert [known[one.chosen] for known, one in zip(found, said, strict=True)] == [
        one.logprob for one in said
    ]
    wrong = lost | {"token_ids": [A for _ in said]}
    assert teacher_topk(wrong, text, HERE)[0] is None


def test_parts_of_a_character_that_llama_cpp_leaves_out_are_refused() -> None:
    # It waits until a character is whole, and gives the last part's id and numbers beside the text of all parts.
    said = answers(HERE.encode("a東"), HERE, 4)
    assert len(said) > 2
    first, *_, last = llama_entries(said, HERE)
    whole = last | {"token": "東", "bytes": list("東".encode())}
    result, reason = teacher_topk({"logprobs": {"content": [first, whole]}}, "a東", HERE)
    assert result is None
    assert reason.startswith(
        f"{OTHERS}token {len(said) - 1} of the answer is '東' (id {last['id']}), here it is "
    )


def test_a_character_that_cannot_be_told_from_lost_bytes_is_refused() -> None:
    here = HERE.encode("\ufffd")
    said = answers(here, HERE, 1)
    assert read(teacher_topk(vllm_ids(said, HERE), "\ufffd", HERE))
    (whole,) = ({"token": "\ufffd", "logprob": -1.0, "bytes": [0xEF, 0xBF, 0xBD]},)
    assert teacher_topk({"logprobs": {"content": [whole]}}, "\ufffd", HERE)[0] is None


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({}, "no log-probabilities: "),
        ({"logprobs": None}, "no log-probabilities: "),
        ({"logprobs": {"content": None}}, "no log-probabilities: "),
        ({"logprobs": {"content": []}}, "no log-probabilities: "),
        ({"logprobs": {"tokens": []}}, "no log-probabilities: "),
        (
            {"logprobs": "yes"},
            "a form that kdfast does not know: logprobs: expected one entry a token, got str",
        ),
        (
            {"logprobs": {"content": {"a": 1}}},
            "a form that kdfast does not know: logprobs: expected one entry",
        ),
        (
            {"logprobs": ["a"]},
            "a form that kdfast does not know: logprobs: token 0: expected an object, got str",
        ),
        (
            {"logprobs": {"tokens": ["a"], "token_logprobs": []}},
            "a form that kdfast does not know: logprobs.token_logprobs: expected a list as long as",
        ),
        (
            {"logprobs": [{"token": "a", "top_logprobs": 3}]},
            "a form that kdfast does not know: logprobs: token 0: expected a list of alternatives, got int",
        ),
        (
            {"completion_probabilities": [{"id": A, "token": "a", "prob": 1.0, "top_probs": []}]},
            "probabilities after sampling: take post_sampling_probs out of api.extra_body",
        ),
        ({"logprobs": {"tokens": ["b"]}}, OTHERS + "token 0 of the answer is 'b', here it is 'a'"),
        ({"logprobs": {"tokens": ["a", "b"]}}, OTHERS + "token 0 of the answer is 'b', here it is 'a'"),
        ({"logprobs": {"tokens": [END]}}, OTHERS + "token 0 of the answer is '<|im_end|>', here it is 'a'"),
    ],
)
def test_reasons(choice: Json, reason: str) -> None:
    result, said = teacher_topk(choice, "a", HERE)
    assert result is None
    assert said.startswith(reason)


def test_an_answer_of_which_only_the_end_came() -> None:
    result = teacher_topk({"logprobs": {"tokens": ["b"]}}, "ab", HERE)
    assert result == (None, f"{OTHERS}the answer has 2 here, and 1 came from the server")


def test_an_empty_answer_has_no_tokens() -> None:
    assert teacher_topk(of_a(), "", HERE) == (None, "no tokens: the answer is empty")


# ------------------------------------------------------------------ to the batch


def test_what_the_server_said_reaches_the_batch(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "tokenizer")
    text = 'naïve 東京: {"a": 1}'
    said = answers([*HERE.encode("\n"), *HERE.encode(text), 2], HERE, 11)
    topk, reason = teacher_topk(llama_chat(said, HERE), text, HERE)
    assert reason == ""
    record = {
        "messages": [{"role": "user", "content": "Hello?"}],
        "teacher_message": {"role": "assistant", "content": text},
        "teacher_topk": topk,
    }
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps(record) + "\n")
    data = KDDataset(file, folder, shapes=[256])
    row = collate_kd_batch(data.__getitems__([0]))
    known = row["teacher_topk_mask"][0]
    assert row["labels"][0][known].tolist() == HERE.encode(text)
    kept = zip(row["teacher_topk_ids"][0][known], row["teacher_topk_logp"][0][known], strict=True)
    for (ids, logprobs), one in zip(kept, said[1:-1], strict=True):
        numbers = {
            int(number): float(lp) for number, lp in zip(ids, logprobs, strict=True) if torch.isfinite(lp)
        }
        # A store keeps 16 bits of each.
        assert numbers == pytest.approx(one.top | {one.chosen: one.logprob}, rel=1e-3)
