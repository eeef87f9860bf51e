"""Batched generation equals one prompt at a time; evaluation scores what was generated."""

import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kdfast.evaluate import Decoding, EvalPrompt, evaluate, generate
from kdfast.scoring.bootstrap import interval_of_share

VOCAB = 64


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.7,  # far from uniform, so that answers differ and ties do not occur
    )
    return LlamaForCausalLM(config).float()


def prompts_of(lengths, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, VOCAB, (length,), generator=generator).tolist() for length in lengths]


@torch.no_grad()
def slow_greedy(model, prompt, eos_ids, max_new_tokens, forbidden=None):
    """The obvious twin: no cache, no padding, one prompt."""
    ids, answer = list(prompt), []
    while len(answer) < max_new_tokens:
        logits = model(torch.tensor([ids])).logits[0, -1]
        if forbidden is not None:
            logits[forbidden] = -torch.inf
        token = int(logits.argmax())
        if token in eos_ids:
            break
        ids.append(token)
        answer.append(token)
    return answer


@pytest.mark.parametrize(
    ("batch_size", "batch_tokens"), [(1, 10_000), (3, 10_000), (8, 10_000), (8, 130), (8, 1)]
)
def test_batches_answer_like_single_prompts(model, batch_size, batch_tokens):
    prompts = prompts_of([3, 17, 1, 40, 9, 17, 2, 25])
    eos_ids = [0, 5, 9, 11, 30, 41]
    decoding = Decoding(
        eos_ids=eos_ids, pad_id=0, max_new_tokens=24, batch_size=batch_size, batch_tokens=batch_tokens
    )
    expected = [slow_greedy(model, prompt, eos_ids, 24) for prompt in prompts]
    lengths = {len(answer) for answer in expected}
    assert len(lengths) > 3, "the prompts must end at different times for this test to mean anything"
    assert generate(model, prompts, decoding) == expected


def test_the_padding_id_does_not_matter_and_no_stop_token_means_full_length(model):
    prompts = prompts_of([4, 19, 11])
    first = generate(model, prompts, Decoding(eos_ids=[], pad_id=0, max_new_tokens=10))
    assert first == generate(model, prompts, Decoding(eos_ids=[], pad_id=63, max_new_tokens=10))
    assert [len(answer) for answer in first] == [10, 10, 10]


def test_a_prompt_that_ends_at_once_gives_an_empty_answer(model):
    (prompt,) = prompts_of([7])
    (token,) = slow_greedy(model, prompt, [], 1)
    assert generate(model, [prompt], Decoding(eos_ids=[token], pad_id=0, max_new_tokens=8)) == [[]]
    assert generate(model, [], Decoding(eos_ids=[], pad_id=0)) == []


def test_progress_counts_prompts_and_tokens_and_the_mode_is_restored(model):
    seen = []
    model.train()
    answers = generate(
        model,
        prompts_of([5, 6, 7]),
        Decoding(eos_ids=[0, 5, 9, 11], pad_id=0, max_new_tokens=12, batch_size=2),
        lambda ended, tokens: seen.append((ended, tokens)),
    )
    assert model.training
    model.eval()
    assert seen == sorted(seen)
    assert seen[-1] == (3, sum(map(len, answers)))


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_each_answer_is_told_of_when_it_has_ended(model, batch_size):
    told, counted = [], []

    def on_progress(ended, _tokens):
        counted.append((ended, len(told)))

    answers = generate(
        model,
        prompts_of([5, 6, 7, 30, 2]),
        Decoding(eos_ids=[0, 5, 9, 11], pad_id=0, max_new_tokens=12, batch_size=batch_size),
        on_progress,
        on_answer=lambda index, ids: told.append((index, list(ids))),
    )
    assert sorted(told) == list(enumerate(answers))
    # not later than the step in which it ended
    assert all(ended == so_far for ended, so_far in counted)
    assert len(set(counted)) > 2


class OnlyEven:
    """Allows even tokens, and remembers what was chosen."""

    def __init__(self):
        self.chosen, self.ended = {}, []

    def restrict(self, places, logits):
        assert not set(places) & set(self.ended)
        odd = torch.arange(logits.shape[1]) % 2 == 1
        return logits.masked_fill(odd, -torch.inf)

    def take(self, place, token, *, ended):
        self.chosen.setdefault(place, []).append(token)
        if ended:
            self.ended.append(place)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_constraint_decides_what_may_be_taken_and_hears_of_every_token(model, batch_size):
    prompts, eos_ids = prompts_of([3, 17, 1, 9, 25]), [0, 8, 30]
    constraint = OnlyEven()
    decoding = Decoding(eos_ids=eos_ids, pad_id=0, max_new_tokens=12, batch_size=batch_size)
    answers = generate(model, prompts, decoding, constraint=constraint)
    assert sorted(constraint.ended) == list(range(5))
    for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        assert answer == slow_greedy(model, prompt, eos_ids, 12, torch.arange(VOCAB) % 2 == 1)
        stopped = len(answer) < 12
        assert constraint.chosen[place][: len(answer)] == answer
        assert len(constraint.chosen[place]) == len(answer) + stopped
    assert any(len(answer) < 12 for answer in answers)


def test_bad_input(model):
    with pytest.raises(ValueError, match="prompts must not be empty"):
        generate(model, [[1], []], Decoding(eos_ids=[], pad_id=0))
    with pytest.raises(ValueError, match="max_new_tokens must be positive: 0"):
        generate(model, [[1]], Decoding(eos_ids=[], pad_id=0, max_new_tokens=0))


def test_nan_logits_stop_the_evaluation(model):
    broken = LlamaForCausalLM(model.config)
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("nan"))
    broken.train()
    with pytest.raises(FloatingPointError, match="NaN"):
        generate(broken, [[1, 2]], Decoding(eos_ids=[], pad_id=0))
    assert broken.training


TOOL = {
    "type": "function",
    "function": {
        "name": "area",
        "parameters": {
            "type": "object",
            "properties": {"side": {"type": "integer"}},
            "required": ["side"],
        },
    },
}
CALL = '<tool_call>\n{"name": "area", "arguments": {"side": 3}}\n</tool_call>'


def test_evaluation_scores_each_answer(model):
    prompts = prompts_of([5, 6, 7, 8])
    decoding = Decoding(eos_ids=[], pad_id=0, max_new_tokens=4)
    texts = [CALL, CALL.replace("3", '"three"'), CALL.replace("3", "4"), CALL]
    by_ids = {tuple(ids): text for ids, text in zip(generate(model, prompts, decoding), texts, strict=True)}
    assert len(by_ids) == 4

    def case(ids, accepted, should_call):
        return EvalPrompt(
            ids=ids,
            tools=json.dumps([TOOL]),
            accepted=accepted,
            reference_text=CALL,
            reference_tokens=8,
            should_call=should_call,
            category="c",
            line=3,
        )

    accepted = [{"area": {"side": [3, 4]}}]
    evaluation = evaluate(
        model,
        [
            case(prompts[0], accepted, True),
            case(prompts[1], accepted, True),
            case(prompts[2], None, True),  # no accepted values: the reference's own are the right ones
            case(prompts[3], None, False),
        ],
        lambda ids: by_ids[tuple(ids)],
        decoding,
    )
    assert [answer.text for answer in evaluation.answers] == texts
    assert all(answer.cut and answer.tokens == 4 for answer in evaluation.answers)
    assert [answer.score.exact_match for answer in evaluation.answers] == [True, False, False, False]
    assert {name: (share.count, share.total) for name, share in evaluation.table.items()} == {
        "parsed": (3, 3),
        "right_function": (3, 3),
        "schema_valid": (2, 3),
        "exact_match": (1, 3),
        "missed_calls": (0, 3),
        "broken_calls": (0, 3),
        "unclosed": (0, 3),
        "false_calls": (1, 1),
        "attempted_calls": (0, 1),
    }
    written = json.loads(json.dumps(evaluation.to_json()))
    low, high = interval_of_share(1, 3)
    assert written["table"]["exact_match"] == {
        "count": 1, "total": 3, "fraction": 1 / 3, "low": low, "high": high,
    }  # fmt: skip
    assert written["table"]["cut"]["count"] == 4
    assert written["quality"]["f1"]["per_prompt"] == [[1, 0, 0], [0, 1, 1], [0, 1, 1], [0, 1, 0]]
    assert written["length"]["ratio"]["p50"]["value"] == 0.5
    assert written["categories"]["c"]["prompts"] == 4
    assert written["answers"][0]["line"] == 3
    assert written["answers"][1]["score"]["mismatch"]["reason"] == "type"
    assert evaluation.generation_s > 0
