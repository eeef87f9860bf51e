"""Constrained answers: a model of random weights writes valid calls, and takes the likeliest token that is allowed."""

import json
import sys

import llguidance
import pytest
import torch
from tiny_models import tiny_llama, write_tokenizer

from kdfast._rust import Tokenizer, ToolSchema, find_tool_calls
from kdfast.errors import ConfigError, SchemaError
from kdfast.evaluate import Decoding, EvalPrompt, evaluate, generate
from kdfast.evaluate.constrained import SchemaConstraint, require_llguidance
from kdfast.evaluate.grammar import answer_grammar

EOS = 258
TOOL = {
    "name": "f",
    "parameters": {
        "type": "object",
        "properties": {"unit": {"enum": ["cm", "in"]}, "big": {"type": "boolean"}},
        "required": ["unit", "big"],
    },
}
TOOLS = json.dumps([TOOL])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def text(folder):
    return (folder / "tokenizer.json").read_text()


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer.from_file(folder)


def prompt(tokenizer, question, tools=TOOLS, **changes):
    """The prompt has begun a call, so that a random model writes one."""
    values = {"reference_text": "", "should_call": True, "line": 1}
    return EvalPrompt(ids=tokenizer.encode(question), tools=tools, **values | changes)


class Begun(SchemaConstraint):
    """The answers have begun a call already."""

    def _matcher(self, place):
        new = place not in self._running
        matcher = super()._matcher(place)
        if new and matcher is not None:
            assert matcher.consume_tokens(self._tokenizer.tokenize_str("<tool_call>"))
        return matcher


QUESTIONS = ["one question<tool_call>", "another one, longer<tool_call>", "x<tool_call>"]


@pytest.mark.slow
def test_calls_of_a_random_model_are_valid_by_construction(text, tokenizer):
    model = tiny_llama(seed=3)
    prompts = [prompt(tokenizer, question) for question in QUESTIONS]
    decoding = Decoding(eos_ids=[EOS], pad_id=EOS, max_new_tokens=100, batch_size=2)
    constraint = Begun(text, [EOS], prompts)
    answers = generate(model, [one.ids for one in prompts], decoding, constraint=constraint)
    free = generate(model, [one.ids for one in prompts], decoding)
    schema = ToolSchema([TOOL])
    for constrained, unconstrained in zip(answers, free, strict=True):
        first, *_ = find_tool_calls("<tool_call>" + tokenizer.decode(constrained), ("hermes",))
        assert schema.is_valid(first)
        assert not find_tool_calls("<tool_call>" + tokenizer.decode(unconstrained), ("hermes",))
    assert constraint._running == {}  # nothing is kept of answers that have ended


@torch.no_grad()
def slow_constrained(model, ids, matcher, most):
    """The obvious twin: no cache, no batch, no bitmask; each token is tried in turn of likelihood."""

    def may_follow(token):
        if token == EOS:
            return matcher.is_accepting()
        return token < EOS and matcher.validate_tokens([token]) == 1

    ids, answer = list(ids), []
    while len(answer) < most:
        order = model(torch.tensor([ids])).logits[0, -1].argsort(descending=True, stable=True)
        token = next(filter(may_follow, order.tolist()))
        if token == EOS:
            break
        assert matcher.consume_token(token)
        ids.append(token)
        answer.append(token)
    return answer


@pytest.mark.slow
def test_the_likeliest_token_that_is_allowed_is_taken(text, tokenizer):
    model = tiny_llama(seed=5)
    prompts = [prompt(tokenizer, question) for question in QUESTIONS]
    decoding = Decoding(eos_ids=[EOS], pad_id=EOS, max_new_tokens=100)
    found = generate(model, [one.ids for one in prompts], decoding, constraint=Begun(text, [EOS], prompts))
    ll_tokenizer = llguidance.LLTokenizer(text, eos_token=[EOS])
    for one, answer in zip(prompts, found, strict=True):
        matcher = llguidance.LLMatcher(ll_tokenizer, answer_grammar([TOOL]), log_level=0)
        matcher.consume_tokens(ll_tokenizer.tokenize_str("<tool_call>"))
        assert answer == slow_constrained(model, one.ids, matcher, 100)


def test_prompts_without_tools_are_answered_freely(text, tokenizer):
    model = tiny_llama(seed=3)
    prompts = [prompt(tokenizer, "hello", tools) for tools in ("", TOOLS, "[]")]
    decoding = Decoding(eos_ids=[EOS], pad_id=EOS, max_new_tokens=20)
    ids = [one.ids for one in prompts]
    constrained = generate(model, ids, decoding, constraint=SchemaConstraint(text, [EOS], prompts))
    assert constrained[0] == constrained[2] == generate(model, ids, decoding)[0]


class OnlyCalls(SchemaConstraint):
    """An answer begins with the special token that opens a call."""

    OPENING = 259

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.begun = set()

    def restrict(self, places, logits):
        restricted = super().restrict(places, logits)
        for row, place in enumerate(places):
            if place not in self.begun:
                self.begun.add(place)
                assert restricted[row, self.OPENING] > -torch.inf
                restricted[row, torch.arange(logits.shape[1]) != self.OPENING] = -torch.inf
        return restricted


def test_tags_that_are_special_tokens(tmp_path):
    extra = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>")
    folder = write_tokenizer(tmp_path, extra)
    tokenizer = Tokenizer.from_file(folder)
    prompts = [prompt(tokenizer, question) for question in ("one question", "another one")]
    constraint = OnlyCalls((folder / "tokenizer.json").read_text(), [EOS], prompts)
    decoding = Decoding(eos_ids=[EOS], pad_id=EOS, max_new_tokens=100)
    answers = generate(tiny_llama(seed=3), [one.ids for one in prompts], decoding, constraint=constraint)
    for answer in answers:
        (call, *_) = find_tool_calls(tokenizer.decode(answer), ("hermes",))
        assert ToolSchema([TOOL]).is_valid(call)


def test_logits_beyond_the_tokenizer_are_never_taken(text, tokenizer):
    constraint = SchemaConstraint(text, [EOS], [prompt(tokenizer, "hello")])
    logits = torch.zeros(1, 400)
    restricted = constraint.restrict([0], logits)
    assert restricted[0, 259:].eq(-torch.inf).all()
    assert restricted[0, EOS] == 0
    assert restricted[0, tokenizer.encode("a")[0]] == 0
    assert logits.eq(0).all()


def test_the_evaluation_takes_a_constraint(text, tokenizer):
    prompts = [prompt(tokenizer, question, category="c") for question in QUESTIONS]
    decoding = Decoding(eos_ids=[EOS], pad_id=EOS, max_new_tokens=100)
    evaluation = evaluate(
        tiny_llama(seed=3),
        prompts,
        lambda ids: "<tool_call>" + tokenizer.decode(ids),
        decoding,
        constraint=Begun(text, [EOS], prompts),
    )
    assert evaluation.table["schema_valid"].count == 3


def test_tools_that_are_no_schema_name_their_line(text, tokenizer):
    broken = json.dumps([{"name": "f", "parameters": {"properties": {"a": {"type": "nonsense"}}}}])
    prompts = [prompt(tokenizer, "a"), prompt(tokenizer, "b", broken, line=12)]
    says = (
        r'line 12: the tools cannot be made a grammar, evaluate without .*: tool "f": parameters/properties/a'
    )
    with pytest.raises(SchemaError, match=says):
        SchemaConstraint(text, [EOS], prompts)


def test_what_the_grammar_leaves_out_is_said_once(text, tokenizer):
    odd = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    tools = json.dumps([TOOL, {"name": "g", "parameters": odd}])
    prompts = [
        prompt(tokenizer, "a", given, line=line) for line, given in ((2, TOOLS), (4, tools), (9, tools))
    ]
    assert SchemaConstraint(text, [EOS], prompts).warnings == [
        'line 4: tool "g": not held by the grammar: Unimplemented keys: ["uniqueItems"] (2 prompts)'
    ]


MAIL = {
    "name": "mail",
    "parameters": {
        "type": "object",
        "properties": {"to": {"type": "string", "pattern": "^(?=.*@)[a-z@.]+$"}},
        "required": ["to"],
    },
}


def calls_that_may_be(constraint, place, texts):
    """Which of the texts an answer to the prompt may be."""
    may = []
    for one in texts:
        matcher = constraint._matcher(place)
        ids = constraint._tokenizer.tokenize_str(one)
        may.append(matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting())
        constraint._running.clear()
    return may


def test_a_pattern_that_looks_ahead_ends_nothing(text, tokenizer):
    tools = json.dumps([MAIL, TOOL])
    prompts = [
        prompt(tokenizer, "Is it raining in Lisbon?", given, line=line)
        for line, given in ((1, tools), (2, TOOLS))
    ]
    constraint = SchemaConstraint(text, [EOS], prompts)
    assert constraint.warnings == [
        'line 1: tool "mail": pattern "^(?=.*@)[a-z@.]+$" is left out of the grammar (1 prompt)'
    ]
    written = [
        ("mail", {"to": "me@example.com"}),  # right
        ("mail", {"to": "NOBODY"}),  # breaks what is left out
        ("mail", {"to": 3}),
        ("mail", {}),
        ("f", {"unit": "cm", "big": True}),
        ("f", {"unit": "km", "big": True}),  # the other tool keeps all
    ]
    calls = [
        "<tool_call>" + json.dumps({"name": name, "arguments": given}) + "</tool_call>"
        for name, given in written
    ]
    assert calls_that_may_be(constraint, 0, calls) == [True, True, False, False, True, False]
    assert calls_that_may_be(constraint, 1, calls) == [False, False, False, False, True, False]
    assert ToolSchema([MAIL]).is_valid_batch(calls[:2]) == [
        True,
        False,
    ]  # the whole schema judges the finished call


@pytest.mark.slow
def test_answers_with_what_is_left_out_are_judged_by_the_whole_schema(text, tokenizer):
    tools = json.dumps([MAIL])
    decoding = Decoding(eos_ids=[EOS], pad_id=EOS, max_new_tokens=100)
    prompts = [prompt(tokenizer, question, tools) for question in QUESTIONS]
    constraint = Begun(text, [EOS], prompts)
    evaluation = evaluate(
        tiny_llama(seed=3),
        prompts,
        lambda ids: "<tool_call>" + tokenizer.decode(ids),
        decoding,
        constraint=constraint,
    )
    assert len(constraint.warnings) == 1
    assert constraint.warnings[0].endswith("(3 prompts)")
    assert evaluation.table["schema_valid"].count == 0


def test_without_llguidance_the_command_to_install_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(
        ConfigError, match=r"--constrained: needs llguidance.*pip install 'kdfast\[constrained\]'"
    ):
        require_llguidance()
