"""Log-probabilities of an answer's tokens in the forms in which servers write them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kdfast._rust import Tokenizer

Json = dict[str, Any]


@dataclass
class Said:
    """What a server knows of a position: the token that it drew, and the log-probabilities of the likeliest."""

    chosen: int
    logprob: float
    top: dict[int, float]


def answers(ids: list[int], of: Tokenizer, seed: int) -> list[Said]:
    """Made-up distributions over some tokens; the drawn one may be beyond the likeliest, as at temperature 1."""
    rng = random.Random(seed)
    said = []
    for chosen in ids:
        tokens = list(dict.fromkeys([*rng.sample(range(of.vocab_size), rng.randint(0, 5)), chosen]))
        weights = [rng.random() + 1e-9 for _ in tokens]
        logprobs = {
            token: math.log(weight / sum(weights)) for token, weight in zip(tokens, weights, strict=True)
        }
        top = dict(sorted(logprobs.items(), key=lambda pair: -pair[1])[: rng.randint(0, len(tokens))])
        said.append(Said(chosen, logprobs[chosen], top))
    return said


def text_of(token: int, of: Tokenizer) -> str:
    return of.token_bytes(token).decode(errors="replace")


def openai_chat(said: list[Said], of: Tokenizer) -> Json:
    def entry(token: int, logprob: float) -> Json:
        return {"token": text_of(token, of), "logprob": logprob, "bytes": list(of.token_bytes(token))}

    content = [
        entry(one.chosen, one.logprob) | {"top_logprobs": [entry(*pair) for pair in one.top.items()]}
        for one in said
    ]
    return {"index": 0, "logprobs": {"content": content, "refusal": None}}


def vllm_ids(said: list[Said], of: Tokenizer) -> Json:
    def entry(token: int, logprob: float) -> Json:
        name = f"token_id:{token}"
        return {"token": name, "logprob": logprob, "bytes": list(name.encode())}

    content = [
        entry(one.chosen, one.logprob) | {"top_logprobs": [entry(*pair) for pair in one.top.items()]}
        for one in said
    ]
    return {"logprobs": {"content": content}}


def vllm_completion_ids(said: list[Said], of: Tokenizer) -> Json:
    return {
        "logprobs": {
            "text_offset": [0] * len(said),
            "token_logprobs": [one.logprob for one in said],
            "tokens": [f"token_id:{one.chosen}" for one in said],
            "top_logprobs": [{f"token_id:{token}": lp for token, lp in one.top.items()} for one in said],
        }
    }


def llama_entries(said: list[Said], of: Tokenizer) -> list[Json]:
    """As llama.cpp writes them: special tokens and parts of a character have no text."""

    def entry(token: int, logprob: float) -> Json:
        data = of.token_bytes(token)
        if of.special_id(data.decode(errors="replace")) == token:
            data = b""
        return {"id": token, "token": data.decode(errors="ignore"), "bytes": list(data), "logprob": logprob}

    return [
        entry(one.chosen, one.logprob) | {"top_logprobs": [entry(*pair) for pair in one.top.items()]}
        for one in said
    ]


def llama_chat(said: list[Said], of: Tokenizer) -> Json:
    return {"logprobs": {"content": llama_entries(said, of)}}


def llama_native(said: list[Said], of: Tokenizer) -> Json:
    return {"completion_probabilities": llama_entries(said, of)}


def fireworks(said: list[Said], of: Tokenizer) -> Json:
    def entry(token: int, logprob: float) -> Json:
        return {"token": text_of(token, of), "token_id": token, "logprob": logprob}

    content = [
        entry(one.chosen, one.logprob) | {"top_logprobs": [entry(*pair) for pair in one.top.items()]}
        for one in said
    ]
    return {"logprobs": {"content": content}}


def sglang_lists(said: list[Said], of: Tokenizer) -> Json:
    return {
        "logprobs": {
            "tokens": [text_of(one.chosen, of) for one in said],
            "token_ids": [one.chosen for one in said],
            "token_logprobs": [one.logprob for one in said],
            "top_logprobs": [
                [[lp, token, text_of(token, of)] for token, lp in one.top.items()] for one in said
            ],
        }
    }


def openai_completion(said: list[Said], of: Tokenizer) -> Json:
    """Texts only: parts of a character as `bytes:\\x..`."""

    def name(token: int) -> str:
        data = of.token_bytes(token)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    return {
        "logprobs": {
            "tokens": [name(one.chosen) for one in said],
            "token_logprobs": [one.logprob for one in said],
            "top_logprobs": [{name(token): lp for token, lp in one.top.items()} for one in said],
        }
    }


def plain_completion(said: list[Said], of: Tokenizer) -> Json:
    """Texts only, as vLLM writes them: a part of a character is U+FFFD, whichever it was."""
    return {
        "logprobs": {
            "tokens": [text_of(one.chosen, of) for one in said],
            "token_logprobs": [one.logprob for one in said],
            "top_logprobs": [{text_of(token, of): lp for token, lp in one.top.items()} for one in said],
        }
    }


def old_llama(said: list[Said], of: Tokenizer) -> Json:
    """Probabilities, and no number for the drawn token beyond the likeliest."""
    return {
        "completion_probabilities": [
            {
                "content": text_of(one.chosen, of),
                "probs": [
                    {"tok_str": text_of(token, of), "prob": math.exp(lp)} for token, lp in one.top.items()
                ],
            }
            for one in said
        ]
    }


Dialect = Callable[[list[Said], Tokenizer], Json]
BY_ID = (vllm_ids, vllm_completion_ids, llama_chat, llama_native, fireworks, sglang_lists)
BY_BYTES = (openai_chat, openai_completion)
BY_TEXT = (plain_completion, old_llama)
DIALECTS = (*BY_ID, *BY_BYTES, *BY_TEXT)
