"""The engine for exports generates what llama.cpp finds likeliest, and holds the interface's promises."""

import pytest
import torch
from tiny_gguf import write_llama, write_scripted
from tiny_models import tiny_llama, write_tokenizer

from kdfast._rust import Tokenizer
from kdfast.llama_cpp import LlamaCppModel
from kdfast.speed import Engine, SpeedOptions, SpeedPrompt, TransformersEngine, measure_prompt
from kdfast.speed.llama_cpp import LlamaCppEngine

PIECES = ("one ", "two ", "three")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scripted")


@pytest.fixture(scope="module")
def model(folder):
    with LlamaCppModel(write_scripted(folder / "student.gguf", PIECES), context=64, threads=1) as model:
        yield model


@pytest.fixture
def engine(model) -> Engine:
    return LlamaCppEngine(model)


def test_it_writes_the_answer(model, engine):
    engine.prefill(model.tokenize("question\n"))
    assert [engine.next() for _ in range(4)] == [259, 260, 261, 258]


def test_a_second_prompt_starts_anew(model, engine):
    engine.prefill(model.tokenize("question\n"))
    engine.next()
    for _ in range(10):  # together they would not fit into the context
        engine.prefill(model.tokenize("another question\n"))
        assert [engine.next(), engine.next()] == [259, 260]


def test_tokens_equal_those_of_torchs_engine(tmp_path):
    source = tiny_llama(seed=4)
    file = write_llama(tmp_path / "tiny.gguf", source, write_tokenizer(tmp_path))
    slow = TransformersEngine(source)
    with LlamaCppModel(file, threads=1) as model:
        fast = LlamaCppEngine(model)
        for seed in range(3):
            ids = torch.randint(0, 256, (20,), generator=torch.Generator().manual_seed(seed)).tolist()
            fast.prefill(ids)
            slow.prefill(ids)
            assert [fast.next() for _ in range(8)] == [slow.next() for _ in range(8)]


def test_the_measurement_takes_it(folder, model, engine):
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
    options = SpeedOptions(max_new_tokens=8, warmup=0, eos_ids=tuple(model.end_ids))
    sample = measure_prompt(engine, SpeedPrompt(text="question\n"), tokenizer, options)
    assert (sample.text, sample.ended) == ("one two three", True)
    assert list(sample.ids) == [259, 260, 261, 258]


def test_next_needs_a_prompt(engine):
    with pytest.raises(RuntimeError, match="prefill must come before next"):
        engine.next()


def test_an_empty_prompt_is_refused(engine):
    with pytest.raises(ValueError, match="at least one token"):
        engine.prefill([])


def test_a_prompt_longer_than_the_context_is_refused(engine):
    with pytest.raises(ValueError, match="holds 64 tokens and has 0: no room for 65 more"):
        engine.prefill([5] * 65)
    with pytest.raises(RuntimeError, match="prefill must come before next"):
        engine.next()


def test_reset_forgets_the_prompt(model, engine):
    engine.prefill(model.tokenize("question\n"))
    engine.reset()
    with pytest.raises(RuntimeError, match="prefill must come before next"):
        engine.next()


def test_logits_that_are_nan_are_no_token(tmp_path):
    source = tiny_llama(layers=1)
    source.model.norm.weight.data[3] = float("nan")
    file = write_llama(tmp_path / "nan.gguf", source, write_tokenizer(tmp_path))
    with LlamaCppModel(file, threads=1) as model:
        engine = LlamaCppEngine(model)
        engine.prefill([5, 6])
        with pytest.raises(FloatingPointError, match="NaN"):
            engine.next()
