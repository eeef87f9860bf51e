"""Tool calls: finding, validating and streaming them, against what people use, in one interleaved run.

    python bench/tool_calls.py .cache/wheels/bfcl_eval-*.whl --tokenizer .cache/quickstart-llm/teacher

The answers are those of all single-turn BFCL records that call tools, written as a model writes them: a sentence of
prose, then `<tool_call>{...}</tool_call>` for each call. Of every fourth answer one argument is left out. Each round
runs every candidate over all answers, in a random order, in this process; before that all say their verdicts, which
are compared. Schemas are compiled beforehand, by everyone. One thread each, but where threads are named.

*find + validate*: does the text hold calls, all complete and valid under their tools' schemas? *stream*: with which
token is the first valid call complete? The tokens are the tokenizer's; peers get them as text. The scanners of the
peers are the shortest that are right on these texts; kdfast's is right on others too. A Python scanner has to loop
over the tokens; kdfast takes them one by one (`feed`), out of an iterator that may be a model
(`feed_until_complete`), or all at once (`feed_tokens`).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_path import machine
from kdfast._rust import Tokenizer
from tool_call_answers import Answer, answers_of
from tool_call_candidates import FIND, Candidates, stream_candidates

LEAST_SECONDS = 0.3  # of each candidate in each round
FIND_GOAL, STREAM_GOAL = 4, 5  # times as fast as the fastest peer


def seconds(candidate: Callable[[list[Answer]], object], answers: list[Answer]) -> float:
    """Seconds for one pass over the answers: the mean of as many as take `LEAST_SECONDS`."""
    passes, started = 0, time.perf_counter()
    while (taken := time.perf_counter() - started) < LEAST_SECONDS:
        candidate(answers)
        passes += 1
    return taken / passes


def compare(candidates: Candidates, answers: list[Answer], rounds: int) -> dict[str, list[float]]:
    """Seconds a pass, by candidate and round."""
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds):
        for name in random.Random(number).sample(list(candidates), len(candidates)):
            samples[name].append(seconds(candidates[name], answers))
    return samples


def table(
    samples: dict[str, list[float]], agreement: dict[str, float], units: int, goal: int
) -> Iterator[str]:
    """Medians, and how many times as fast as the fastest peer, round by round."""
    each = {name: statistics.median(runs) / units * 1e9 for name, runs in samples.items()}
    best = min((name for name in samples if not name.startswith("kdfast")), key=each.__getitem__)
    ratios = {
        name: statistics.median(other / own for own, other in zip(runs, samples[best], strict=True))
        for name, runs in samples.items()
    }
    yield f"| candidate | ns | times as fast as {best} | same answers |"
    yield "|---|---|---|---|"
    for name, ratio in ratios.items():
        same = "" if "empty" in name else f"{agreement[name]:.2%}"
        yield f"| {name} | {each[name]:,.0f} | {ratio:.2f} | {same} |"
    floor = next(name for name in samples if "empty" in name)
    ours = [name for name in samples if name.startswith("kdfast") and name != floor]
    yield ""
    yield (
        f"Goal: {goal} times the fastest peer, {each[best] / goal:,.0f} ns; of these the call from Python alone "
        f"({floor}) takes {each[floor]:,.0f}. "
        + "; ".join(f"{name}: {verdict(ratios[name], goal)}" for name in ours)
        + "."
    )


def verdict(ratio: float, goal: int) -> str:
    """How a ratio stands to the goal."""
    return f"{ratio:.2f}, {'met' if ratio >= goal else 'missed'}"


def agreement_with(reference: str, said: dict[str, list[Any]]) -> dict[str, float]:
    """The share of answers on which each says the same as `reference`."""
    truth = said[reference]
    return {
        name: sum(a == b for a, b in zip(ours, truth, strict=True)) / len(truth)
        for name, ours in said.items()
    }


def main() -> None:
    """Runs all candidates and writes bench/results/tool_calls.{json,md}."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path, help="bfcl-eval's")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    tokenizer = Tokenizer.from_file(options.tokenizer / "tokenizer.json")
    answers = answers_of(options.wheel, tokenizer)
    streams = stream_candidates(tokenizer)
    verdicts = {name: candidate(answers) for name, candidate in FIND.items()}
    reference = "raw_decode + jsonschema-rs"
    found_agree = agreement_with(reference, verdicts)
    ends = {name: candidate(answers) for name, candidate in streams.items()}
    stream_agree = agreement_with("incremental Python scanner + jsonschema-rs", ends)
    found, streamed = compare(FIND, answers, options.rounds), compare(streams, answers, options.rounds)
    valid, tokens = sum(verdicts[reference]), sum(len(answer.ids) for answer in answers)
    size = sum(len(answer.data) for answer in answers)
    lines = [
        "# Finding, validating and streaming tool calls",
        "",
        f"`make bench`: {len(answers)} answers of BFCL ({valid} valid), {size / len(answers):.0f} bytes and "
        f"{tokens / len(answers):.0f} tokens each; medians of {options.rounds} interleaved rounds.",
        " · ".join(f"{key}: {value}" for key, value in machine().items()),
        "",
        "## Find + validate, a text",
        "",
        *table(found, found_agree, len(answers), FIND_GOAL),
        "",
        "## Stream, a token",
        "",
        *table(streamed, stream_agree, tokens, STREAM_GOAL),
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "tool_calls.md").write_text("\n".join(lines) + "\n")
    document = {
        "machine": machine(),
        "answers": len(answers),
        "valid": valid,
        "tokens": tokens,
        "bytes": size,
    }
    document |= {"rounds": options.rounds, "find_agreement": found_agree, "stream_agreement": stream_agree}
    document |= {"find_seconds": found, "stream_seconds": streamed}
    (options.out / "tool_calls.json").write_text(json.dumps(document, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
