"""llama.cpp's logits of a tiny Llama equal those of torch; every misuse and damaged file is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gguf import write_llama
from tiny_models import TEMPLATE, VOCAB, tiny_llama, write_tokenizer
from transformers import AutoTokenizer

from kdfast.errors import DataError
from kdfast.llama_cpp import LlamaCppModel

CONTEXT = 1024
# The cache is fp16 in llama.cpp, and attention here is sharp. Logits have a standard deviation of 1.7.
MEAN, MOST = 0.01, 0.3


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def torch_model():
    return tiny_llama(max_position_embeddings=CONTEXT)


@pytest.fixture(scope="module")
def file(directory, torch_model):
    return write_llama(directory / "tiny.gguf", torch_model, directory, template=TEMPLATE)


@pytest.fixture(scope="module")
def opened(file):
    with LlamaCppModel(file, threads=1) as model:
        yield model


@pytest.fixture
def model(opened):
    opened.clear()
    return opened


def ids_of(count, seed=0):
    return torch.randint(0, 256, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.no_grad()
def torch_logits(model, ids):
    return model(torch.tensor([ids])).logits[0].numpy()


def assert_close(found, expected):
    """Equal within an fp16 cache's error, with the same best token where it leads clearly."""
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < MEAN
    assert np.abs(found - expected).max() < MOST
    clear = leads(expected)
    assert (found.argmax(1) == expected.argmax(1))[clear].all()


def leads(logits):
    """[n] whether the best token's lead is larger than the error can be."""
    second, first = np.sort(logits, axis=1)[:, -2:].T
    return first - second > 2 * MOST


def test_logits_equal_those_of_torch(model, torch_model):
    ids = ids_of(100)
    assert_close(model.decode(ids, every=True), torch_logits(torch_model, ids))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_logits_of_other_files_equal_those_of_torch(tmp_path, directory, tied, half):
    source = tiny_llama(seed=1, tied=tied)
    file = write_llama(tmp_path / "tiny.gguf", source, directory, half=half)
    if half:
        for parameter in source.parameters():
            parameter.data = parameter.data.half().float()
    ids = ids_of(50)
    with LlamaCppModel(file, threads=1) as model:
        found = model.decode(ids, every=True)
    expected = torch_logits(source, ids)
    assert np.abs(found - expected).mean() < MEAN * (
        4 if half else 1
    )  # F16: the inputs are rounded to fp16, too
    assert np.abs(found - expected).max() < MOST


def test_rows_in_the_wrong_order_are_seen(tmp_path, directory, torch_model, monkeypatch):
    """The comparison above would notice q and k that are not permuted."""
    monkeypatch.setattr("tiny_gguf.permuted", lambda tensor, name, config: tensor)
    file = write_llama(tmp_path / "wrong.gguf", torch_model, directory)
    ids = ids_of(50)
    with LlamaCppModel(file, threads=1) as model:
        found = model.decode(ids, every=True)
    assert np.abs(found - torch_logits(torch_model, ids)).max() > 1


def test_a_prompt_longer_than_a_batch(model, torch_model):
    ids = ids_of(700)
    expected = torch_logits(torch_model, ids)
    assert_close(model.decode(ids, every=True), expected)
    model.clear()
    assert_close(model.decode(ids), expected[-1:])


@settings(max_examples=20)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5), seed=st.integers(0, 9))
def test_pieces_give_what_one_pass_gives(opened, sizes, seed):
    ids = ids_of(sum(sizes), seed)
    opened.clear()
    whole = opened.decode(ids, every=True)
    opened.clear()
    starts = np.cumsum([0, *sizes])
    pieces = [
        opened.decode(ids[start : start + size], every=True)
        for start, size in zip(starts, sizes, strict=False)
    ]
    assert_close(np.concatenate(pieces), whole)


def test_clear_forgets_what_was_read(model):
    first = model.decode([5, 6])
    assert not np.allclose(model.decode([5, 6]), first)  # it follows other tokens now
    model.clear()
    np.testing.assert_array_equal(model.decode([5, 6]), first)


def test_the_logits_are_a_copy(model):
    first = model.decode([5])
    kept = first.copy()
    model.decode([6])
    np.testing.assert_array_equal(first, kept)
    assert first.dtype == np.float32
    assert first.shape == (1, VOCAB)


def test_greedy_tokens_equal_those_of_torch(model, torch_model):
    ids = ids_of(8)
    found, logits = [], model.decode(ids)
    for _ in range(16):
        found.append(int(logits.argmax()))
        logits = model.decode(found[-1:])
    expected = torch_logits(torch_model, ids + found)[len(ids) - 1 : -1]
    clear = leads(expected)
    assert clear.sum() > 4
    assert (np.array(found) == expected.argmax(1))[clear].all()


def test_what_the_file_says(model):
    assert (model.vocab_size, model.context) == (VOCAB, CONTEXT)
    assert model.end_ids == {
        256,
        258,
    }  # its end token, and `<|endoftext|>`, which llama.cpp knows by its name
    assert model.metadata("general.architecture") == "llama"
    assert model.metadata("llama.block_count") == "3"
    assert model.metadata("tokenizer.chat_template") == TEMPLATE
    assert model.metadata("no.such.key") is None


@given(text=st.text(max_size=60) | st.sampled_from(["", "<|im_end|>", "a<|im_start|>b\n\n", "\0", "é€😀"]))
def test_tokens_equal_those_of_the_tokenizer(opened, tokenizer, text):
    assert opened.tokenize(text) == tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.fixture(scope="module")
def tokenizer(directory):
    (directory / "config.json").write_text('{"model_type": "llama"}')
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return AutoTokenizer.from_pretrained(directory)


def test_the_context_is_at_most_4096_unless_more_is_asked_for(tmp_path, directory):
    long = tiny_llama(layers=1, max_position_embeddings=100_000)
    file = write_llama(tmp_path / "long.gguf", long, directory)
    with LlamaCppModel(file, threads=1) as model:
        assert model.context == 4096
    with LlamaCppModel(file, context=5000, threads=1) as model:
        assert model.context == 5000


def test_a_full_context_is_refused_with_the_numbers(file):
    with LlamaCppModel(file, context=10, threads=1) as model:
        model.decode(ids_of(8))
        with pytest.raises(ValueError, match="holds 10 tokens and has 8: no room for 3 more"):
            model.decode(ids_of(3))
        model.decode(ids_of(2))
        model.clear()
        model.decode(ids_of(10))


@pytest.mark.parametrize(
    ("ids", "message"), [([], "at least one token"), ([1, 300], "0 to 299, got 300"), ([-1], "got -1")]
)
def test_wrong_ids_are_refused(model, ids, message):
    with pytest.raises(ValueError, match=message):
        model.decode(ids)


def test_negative_numbers_are_refused(file):
    with pytest.raises(ValueError, match="must not be negative, got -1 and 0"):
        LlamaCppModel(file, context=-1)


def test_a_closed_model_is_refused(file):
    with LlamaCppModel(file, context=8, threads=1) as model:
        pass
    model.close()
    for use in (
        lambda: model.decode([1]),
        model.clear,
        lambda: model.tokenize("a"),
        lambda: model.metadata("a"),
    ):
        with pytest.raises(RuntimeError, match="closed"):
            use()


def test_two_models_at_once(file, model, torch_model):
    ids = ids_of(20)
    with LlamaCppModel(file, threads=1) as other:
        other.decode(ids_of(5, seed=3))
        assert_close(model.decode(ids, every=True), torch_logits(torch_model, ids))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "no GGUF file.*starts with b''"),
        (lambda data: b'{"a": 1}', "no GGUF file.*kdfast export RUN --target gguf"),
        (lambda data: data[:-4096], "'output.weight' data is not within the file bounds"),
        (lambda data: data[:200], "exceeds remaining file size"),
        (lambda data: b"GGUF\x09" + data[5:], "version 9"),
        (lambda data: data.replace(b"llama", b"xlama"), "unknown model architecture: 'xlama'"),
    ],
)
def test_a_damaged_file_is_refused_with_the_reason(tmp_path, file, damage, message):
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        LlamaCppModel(damaged)
    assert caught.value.source == str(damaged)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.gguf: cannot read the model: No such file"):
        LlamaCppModel(tmp_path / "none.gguf")
