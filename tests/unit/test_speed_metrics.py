"""Speed metrics from a scripted model and a scripted clock: every value is known exactly."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from area_tool import CALL, TO_BRACE, TOOLS
from tiny_models import tiny_llama, write_tokenizer

import kdfast
from kdfast import aggregate_speed_metrics, is_valid_tool_json, measure_proxy
from kdfast._rust import Tokenizer, tool_call_formats
from kdfast.speed import (
    METRICS,
    Metric,
    SpeedOptions,
    SpeedPrompt,
    TransformersEngine,
    by_shape,
    measure_prompt,
    model_eos_ids,
    prompts_fingerprint,
    shortest_call_tokens,
    truth_fingerprint,
)

END = 258
WRONG = '{"name":"area","arguments":{"side":"three"}} '
TO_NAME = CALL.index('area"') + 5


class Scripted:
    """Answers by the script, and moves the clock: a second to prefill, then by what each token costs."""

    def __init__(self, answer: list[int], token_ms: list[float], prefill_ms: float = 1000.0) -> None:
        self.answer, self.token_ms, self.prefill_ms = answer, token_ms, prefill_ms
        self.now, self.calls = 0.0, []

    def clock(self) -> float:
        self.calls.append("clock")
        return self.now

    def reset(self) -> None:
        self.left = iter(())

    def prefill(self, ids) -> None:
        self.calls.append(f"prefill {len(ids)}")
        self.now += self.prefill_ms / 1000
        self.left = zip(self.answer, itertools.cycle(self.token_ms), strict=False)

    def next(self) -> int:
        self.calls.append("next")
        token, cost = next(self.left, (END, 0.0))
        self.now += cost / 1000
        return token


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    return Tokenizer.from_file(write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def measured(tokenizer, answer: str, *, ended: bool = True, token_ms=(4.0,), options=None, **prompt):
    engine = Scripted([*tokenizer.encode(answer), *([END] if ended else [])], list(token_ms))
    given = SpeedPrompt(**{"text": "question", "tools": TOOLS, "needs_call": True, **prompt})
    options = options or SpeedOptions(eos_ids=(END,), warmup=0)
    (sample,) = measure_proxy(engine, [given], tokenizer, options, clock=engine.clock)
    return sample, engine


def test_ttft_measurement(tokenizer) -> None:
    sample, engine = measured(tokenizer, "ab", token_ms=[16.0, 8.0, 32.0])
    assert (sample.tokenise_ms, sample.prefill_ms, sample.first_token_ms) == pytest.approx((0, 1000, 16))
    assert sample.ttft_ms == pytest.approx(1016)
    assert sample.prompt_tokens == len("question")
    # the clock is read before the text is tokenised, after each step, and at no other time
    step = ["next", "clock"]
    assert engine.calls == ["clock", "clock", "prefill 8", "clock", *step, *step, *step]


def test_tokenising_is_part_of_the_time_to_the_first_token(tokenizer) -> None:
    ticks = iter([0.0, 0.25, 0.5, 0.75])
    engine = Scripted([END], [0.0])
    options = SpeedOptions(eos_ids=(END,))
    sample = measure_prompt(engine, SpeedPrompt(text="x"), tokenizer, options, clock=lambda: next(ticks))
    assert (sample.tokenise_ms, sample.prefill_ms, sample.first_token_ms) == (250, 250, 250)
    assert sample.ttft_ms == 750


def test_warm_up_is_off_the_clock(tokenizer) -> None:
    _, engine = measured(tokenizer, "ab", options=SpeedOptions(eos_ids=(END,), warmup=2, max_new_tokens=3))
    before = engine.calls[: engine.calls.index("clock")]
    assert before == ["prefill 8", "next", "next", "next"] * 2
    assert engine.calls.count("clock") == 3 + 3


def test_tps_measurement(tokenizer) -> None:
    sample, _ = measured(tokenizer, "abc", token_ms=[100.0, 10.0, 20.0, 60.0])
    assert sample.itl_ms == pytest.approx([10, 20, 60])  # the token that ends the answer took a step, too
    assert sample.tpot_ms == pytest.approx(30)
    assert sample.tps == pytest.approx(1000 / 30)
    assert sample.ended
    assert sample.text == "abc"
    assert len(sample.ids) == 4


def test_an_answer_of_one_token_has_no_rate(tokenizer) -> None:
    sample, _ = measured(tokenizer, "", needs_call=False)
    assert sample.values().keys() == {
        "ttft_ms", "ttft_tokenise_ms", "ttft_prefill_ms", "ttft_first_token_ms", "itl_ms", "prompt_tokens",
        "output_tokens",
    }  # fmt: skip
    speed = aggregate_speed_metrics([sample])
    assert {name: speed.absent[name] for name in ("itl_ms", "tpot_ms", "tps")} == dict.fromkeys(
        ("itl_ms", "tpot_ms", "tps"), "no answer has a second token"
    )
    assert speed.absent["ttfa_tokens"] == "no prompt needs a call"


def test_a_cut_answer(tokenizer) -> None:
    options = SpeedOptions(eos_ids=(END,), warmup=0, max_new_tokens=5)
    sample, _ = measured(tokenizer, CALL, options=options)
    assert not sample.ended
    assert sample.text == CALL[:5]
    assert len(sample.itl_ms) == 4
    assert sample.ttfa_tokens == math.inf


@pytest.mark.parametrize("before", ["", "Let me see: ", WRONG, "naïve 東京 "])
def test_ttfa_measurement(tokenizer, before: str) -> None:
    sample, _ = measured(tokenizer, before + CALL, shortest_call_tokens=40)
    skipped = len(before.encode())
    assert sample.ttfa_tokens == skipped + TO_BRACE
    assert sample.ttfa_name_tokens == skipped + TO_NAME
    assert sample.ttfa_overhead_tokens == skipped + TO_BRACE - 40
    # a second to prefill, and 4 ms for each token up to and with that one
    assert sample.ttfa_ms == pytest.approx(1000 + 4 * sample.ttfa_tokens)
    assert sample.ttfa_ms == pytest.approx(sample.ttft_ms + sum(sample.itl_ms[: int(sample.ttfa_tokens) - 1]))


@pytest.mark.parametrize(
    "answer", ["", "I do not know.", WRONG, CALL[: TO_BRACE - 1], CALL.replace("area", "volume")]
)
def test_no_valid_call_is_infinite_and_stays_so(tokenizer, answer: str) -> None:
    sample, _ = measured(tokenizer, answer, shortest_call_tokens=40)
    names = ("ttfa_tokens", "ttfa_name_tokens", "ttfa_overhead_tokens", "ttfa_ms")
    assert [sample.values()[name] for name in names] == [math.inf] * 4
    speed = aggregate_speed_metrics([sample])
    written = speed["ttfa_tokens"].to_json()
    assert (written["p50"], written["p95"], written["infinite"], written["count"]) == (None, None, 1, 1)


def test_ttfa_is_absent_where_no_call_is_due_or_no_truth_is_known(tokenizer) -> None:
    no_call, _ = measured(tokenizer, CALL, needs_call=False, shortest_call_tokens=40)
    assert not any(name.startswith("ttfa") for name in no_call.values())
    no_truth, _ = measured(tokenizer, CALL)
    assert no_truth.ttfa_tokens == TO_BRACE
    assert no_truth.ttfa_overhead_tokens is None
    speed = aggregate_speed_metrics([no_call, no_truth])
    assert speed["ttfa_tokens"].count == 1
    assert speed.absent == {"ttfa_overhead_tokens": "no prompt that needs a call has a ground truth"}


def test_the_same_formats_count_for_the_first_action_the_shortest_call_and_the_score(tokenizer) -> None:
    every = SpeedOptions(eos_ids=(END,), warmup=0, formats=tool_call_formats())
    bare = CALL.removeprefix("<tool_call>").removesuffix("</tool_call>")
    sample, _ = measured(tokenizer, bare, reference=CALL)
    assert sample.ttfa_tokens == math.inf
    assert shortest_call_tokens(bare, None, TOOLS, tokenizer) is None
    assert (sample.score().calls_made, sample.score().calls_not_counted) == (0, 1)
    sample, _ = measured(tokenizer, bare, options=every, reference=bare)
    assert sample.ttfa_tokens == len(bare)
    assert shortest_call_tokens(bare, None, TOOLS, tokenizer, every.formats) == len(bare)
    score = sample.score(every.formats)
    assert (score.exact_match, score.calls_not_counted) == (True, 0)
    sample, _ = measured(tokenizer, CALL, reference=CALL)
    assert sample.ttfa_tokens == TO_BRACE
    assert (sample.score().exact_match, sample.score().calls_not_counted) == (True, 0)


def test_aggregate_single_metric() -> None:
    values = [float(value) for value in range(1, 21)]
    speed = aggregate_speed_metrics([{"ttft_ms": value} for value in reversed(values)])
    metric = speed["ttft_ms"].to_json()
    assert metric["unit"] == "ms"
    assert (metric["p50"], metric["p90"], metric["p95"], metric["p99"]) == (10.0, 18.0, 19.0, 20.0)
    assert (metric["p1"], metric["p5"], metric["p10"], metric["p25"], metric["p75"]) == (
        1.0,
        1.0,
        2.0,
        5.0,
        15.0,
    )
    assert (metric["min"], metric["max"], metric["avg"], metric["count"]) == (1.0, 20.0, 10.5, 20)
    assert metric["std"] == pytest.approx(math.sqrt((20**2 - 1) / 12))
    assert metric["samples"] == list(reversed(values))
    assert set(speed.absent) == set(METRICS) - {"ttft_ms"}


def test_aggregate_multiple_metrics() -> None:
    never = math.inf
    speed = aggregate_speed_metrics(
        [
            {"ttft_ms": 10.0, "tps": 50.0, "ttfa_tokens": never, "itl_ms": [20.0, 21.0]},
            {"ttft_ms": 30.0, "tps": 20.0, "ttfa_tokens": 12.0, "itl_ms": [50.0]},
            {"ttft_ms": 20.0, "ttfa_tokens": 18.0},
        ]
    )
    assert speed["ttft_ms"].percentile(50) == 20.0
    assert speed["tps"].to_json()["p5"] == 20.0
    assert speed["tps"].count == 2
    assert speed["itl_ms"].samples == [20.0, 21.0, 50.0]
    # one of three never acted: the median is a number that was measured, the tail is infinite
    ttfa = speed["ttfa_tokens"].to_json()
    assert (ttfa["p50"], ttfa["p90"], ttfa["avg"], ttfa["max"], ttfa["std"]) == (18.0, None, None, None, None)
    assert (ttfa["infinite"], ttfa["min"], ttfa["samples"]) == (1, 12.0, [None, 12.0, 18.0])
    json.dumps(speed.to_json(), allow_nan=False)
    assert speed.absent["ttfa_ms"] == "no prompt needs a call"


@pytest.mark.parametrize("level", [1, 5, 10, 25, 50, 75, 90, 95, 99])
def test_percentiles_are_the_sorted_samples(level: int) -> None:
    rng = np.random.default_rng(level)
    values = [*rng.integers(0, 50, size=37).astype(float), math.inf, math.inf]
    # the slow twin: the first of the sorted samples at which the share is reached
    twin = sorted(values)[math.ceil(level * len(values) / 100) - 1]
    assert Metric("ms", values).percentile(level) == twin


def test_bad_samples() -> None:
    with pytest.raises(ValueError, match=r"metric must be one of ttft_ms, .*, got 'ttft'"):
        aggregate_speed_metrics([{"ttft": 1.0}])
    with pytest.raises(ValueError, match="must not be NaN"):
        aggregate_speed_metrics([{"tps": math.nan}])
    assert aggregate_speed_metrics([]).absent["ttft_ms"] == "no prompt was measured"


def test_is_valid_tool_json() -> None:
    call = '{"name": "area", "arguments": {"side": 3}}'
    tools = json.loads(TOOLS)
    assert is_valid_tool_json(call)
    assert is_valid_tool_json(call, tools)
    assert is_valid_tool_json(f"<tool_call>{call}</tool_call>", tools)
    assert not is_valid_tool_json(call[:-1])  # what only begins like a call is none
    assert not is_valid_tool_json('{"side": 3}')
    assert not is_valid_tool_json(call.replace("3", '"three"'), tools)
    assert not is_valid_tool_json(call.replace("area", "volume"), tools)
    assert not is_valid_tool_json('{"name": "area", "arguments": {}}', tools)
    assert not is_valid_tool_json("")


# the engine


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return tiny_llama()


def test_the_cached_engine_is_the_slow_twin(model) -> None:
    engine = TransformersEngine(model)
    for prompt in ([5], list(range(40, 90))):
        engine.prefill(prompt)
        answer = [engine.next() for _ in range(12)]
        ids = list(prompt)
        with torch.no_grad():
            for token in answer:  # no cache, everything again for each token
                assert int(model(torch.tensor([ids])).logits[0, -1].argmax()) == token
                ids.append(token)


def test_the_engine_refuses_what_it_cannot_do(model) -> None:
    engine = TransformersEngine(model)
    with pytest.raises(RuntimeError, match="prefill must come before next"):
        engine.next()
    with pytest.raises(ValueError, match="at least one token"):
        engine.prefill([])
    broken = tiny_llama()
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("nan"))
    engine = TransformersEngine(broken)
    engine.prefill([1])
    with pytest.raises(FloatingPointError, match="NaN"):
        engine.next()


def test_a_model_is_measured_in_evaluation_mode_which_is_undone(model, tokenizer) -> None:
    prompts = [SpeedPrompt(text="hello", shape=shape) for shape in (64, 128, 64)]
    model.train()
    seen = []
    samples = measure_proxy(
        model,
        prompts,
        tokenizer,
        SpeedOptions(max_new_tokens=4),
        on_progress=lambda done, sample: seen.append((done, model.training, sample)),
    )
    assert model.training
    model.eval()
    assert seen == [(number, False, sample) for number, sample in enumerate(samples, 1)]
    assert samples[0].ids == samples[1].ids == samples[2].ids  # nothing is left of the prompt before
    assert all(value > 0 for value in (samples[0].ttft_ms, samples[0].prefill_ms, *samples[0].itl_ms))
    assert {shape: part["ttft_ms"].count for shape, part in by_shape(samples).items()} == {64: 2, 128: 1}


def test_the_end_tokens_are_the_models_own(model, tokenizer) -> None:
    assert model_eos_ids(model) == (END,)
    assert model_eos_ids(torch.nn.Linear(1, 1)) == ()
    first = TransformersEngine(model)
    first.prefill(tokenizer.encode("hello"))
    token = first.next()
    options = SpeedOptions(eos_ids=(token,), max_new_tokens=4)
    (sample,) = measure_proxy(model, [SpeedPrompt(text="hello")], tokenizer, options)
    assert (sample.ids, sample.text, sample.ended) == ((token,), "", True)


def test_bad_options(tokenizer) -> None:
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1, got 0"):
        SpeedOptions(max_new_tokens=0)
    with pytest.raises(ValueError, match="warmup must be at least 0, got -1"):
        SpeedOptions(warmup=-1)
    with pytest.raises(ValueError, match="eos_ids must be given with an engine"):
        measure_proxy(Scripted([], []), [SpeedPrompt(text="a")], tokenizer)


def test_a_tokenizer_by_its_path_and_a_training_batch(model, tokenizer, tmp_path: Path) -> None:
    text = "question"
    ids = tokenizer.encode(text)
    batch = {
        "input_ids": torch.tensor([[*ids, *tokenizer.encode("answer"), 0, 0]] * 2),
        "response_start": torch.tensor([len(ids), 3]),
        "tool_should_be_used": torch.tensor([True, False]),
    }
    options = SpeedOptions(max_new_tokens=2)
    samples = measure_proxy(model, batch, write_tokenizer(tmp_path), options)
    assert [sample.prompt.text for sample in samples] == [text, "que"]
    assert [sample.ttfa_tokens for sample in samples] == [math.inf, None]
    assert [sample.prompt.shape for sample in samples] == [16, 16]
    with pytest.raises(ValueError, match="must not be packed"):
        measure_proxy(model, {**batch, "segment_ids": batch["input_ids"]}, tokenizer)


def test_the_fingerprint_of_prompts_sees_texts_tools_and_order() -> None:
    one, other = SpeedPrompt(text="a"), SpeedPrompt(text="b")
    prints = [
        prompts_fingerprint(prompts)
        for prompts in ([one, other], [other, one], [one], [SpeedPrompt(text="a", tools=TOOLS), other])
    ]
    assert len(set(prints)) == 4
    assert prints[0] == prompts_fingerprint([one, SpeedPrompt(text="b", line=3)])


def test_the_truth_has_a_fingerprint_of_its_own() -> None:
    one = SpeedPrompt(text="a", needs_call=True, reference="x", accepted=[{"f": {"n": [1]}}])
    prints = [
        truth_fingerprint([prompt])
        for prompt in (
            one,
            replace(one, accepted=[{"f": {"n": [1, 2]}}]),
            replace(one, accepted=None),
            replace(one, accepted=None, reference="y"),
            replace(one, needs_call=False),
        )
    ]
    assert len(set(prints)) == 5
    # what does not decide is not in it
    assert truth_fingerprint([replace(one, text="b", reference="y")]) == prints[0]
    assert truth_fingerprint([replace(one, needs_call=False, reference="y", accepted=None)]) == prints[4]
    assert prompts_fingerprint([replace(one, reference="y")]) == prompts_fingerprint([one])


def test_public_names() -> None:
    assert kdfast.measure_proxy is measure_proxy
    assert {"measure_proxy", "aggregate_speed_metrics", "is_valid_tool_json"} <= set(kdfast.__all__)
