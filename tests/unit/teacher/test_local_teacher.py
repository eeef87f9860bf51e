import json
import math

import gguf
import numpy as np
import pytest
import torch
from tiny_models import VOCAB, byte_pieces, tiny_llama, write_model, write_tokenizer

from kdfast.errors import ConfigError, DataError, TeacherError
from kdfast.teacher import LocalTeacher, ScoringRow, Wanted, call_opening_ids, convert_gguf
from kdfast.teacher.local.scores import score_logits
from kdfast.teacher.local.teacher import token_batches

WANTED = Wanted(k=6, usable=VOCAB, always_ids=(258,), call_opening_ids=(60, 123))
ROWS = [
    ScoringRow([5, 9, 200, 31, 7, 258], 3),
    ScoringRow([1, 2, 3, 4, 5, 6, 7, 8, 9, 258], 9),
    ScoringRow([77, 258], 1),
    ScoringRow([40, 41, 42, 43, 44, 45, 46, 258], 2),
]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return LocalTeacher(write_model(tmp_path_factory.mktemp("teacher")), device="cpu")


def scored(teacher, rows=ROWS, wanted=WANTED, **options):
    pairs = [pair for batch in teacher.score(rows, wanted, **options) for pair in batch]
    assert sorted(index for index, _ in pairs) == list(range(len(rows)))
    return dict(pairs)


def full_logp(row, prefix=()):
    """The slow way: the whole sequence alone, all log-probabilities in float64."""
    model = tiny_llama().double()
    with torch.no_grad():
        logits = model(torch.tensor([[*prefix, *row.ids]])).logits[0]
    start = len(prefix) + row.response_start
    return torch.log_softmax(logits, 1)[start - 1 : -1]


@pytest.mark.parametrize("batch_tokens", [1, 12, 2048])
@pytest.mark.parametrize("prefix", [(), (11, 258, 12, 13, 14)])
def test_scores_equal_the_whole_sequence_scored_alone(teacher, batch_tokens, prefix):
    scores = scored(teacher, prefix_ids=prefix, batch_tokens=batch_tokens)
    for index, row in enumerate(ROWS):
        exact, mine = full_logp(row, prefix), scores[index]
        n = len(row.ids) - row.response_start
        assert (mine.topk_ids.shape, mine.topk_ids.dtype, mine.topk_logp.dtype) == (
            (n, 6),
            np.int32,
            np.float32,
        )
        ids = torch.from_numpy(mine.topk_ids).long()
        np.testing.assert_allclose(mine.topk_logp, exact.gather(1, ids), atol=2e-5)
        rest = exact.scatter(1, ids, -math.inf).logsumexp(1)
        np.testing.assert_allclose(mine.tail_logp, rest, atol=2e-5)
        np.testing.assert_allclose(mine.call_opening_logp, exact[:, [60, 123]].logsumexp(1), atol=2e-5)
        for t, token in enumerate(row.ids[row.response_start :]):
            best = exact[t].argsort(descending=True).tolist()
            must = {token, 258}
            expected = must | set([i for i in best if i not in must][: 6 - len(must)])
            assert set(mine.topk_ids[t].tolist()) == expected


def test_masses_add_up_to_1_and_ids_are_sorted(teacher):
    for mine in scored(teacher).values():
        np.testing.assert_allclose(np.exp(mine.topk_logp).sum(1) + np.exp(mine.tail_logp), 1, atol=1e-5)
        assert (np.diff(mine.topk_logp, axis=1) <= 0).all()


def test_a_prefix_changes_the_scores_and_is_not_changed_by_a_row(teacher):
    prefix = [11, 258, 12, 13, 14]
    alone = scored(teacher)
    twice = [scored(teacher, [ROWS[0], ROWS[0], ROWS[3]], prefix_ids=prefix, batch_tokens=t) for t in (1, 99)]
    for scores in twice:
        np.testing.assert_allclose(scores[0].tail_logp, scores[1].tail_logp, atol=1e-6)
    assert np.abs(twice[0][0].tail_logp - alone[0].tail_logp).max() > 0.01


def test_ids_beyond_the_tokenizer_take_no_part(teacher):
    wanted = Wanted(k=4, usable=259, always_ids=(258,))
    exact = torch.log_softmax(full_logp(ROWS[0])[:, :259], 1)
    mine = scored(teacher, ROWS[:1], wanted)[0]
    assert mine.topk_ids.max() < 259
    np.testing.assert_allclose(
        mine.topk_logp, exact.gather(1, torch.from_numpy(mine.topk_ids).long()), atol=2e-5
    )
    assert (mine.call_opening_logp == -math.inf).all()


def test_k_beyond_the_vocabulary_is_filled_up():
    ids, logp, tail, _ = score_logits(torch.zeros(1, 3), torch.tensor([2]), Wanted(k=5, usable=3))
    assert ids[0, 3:].tolist() == [0, 0]
    assert logp[0].tolist() == pytest.approx([math.log(1 / 3)] * 3 + [-math.inf] * 2)
    assert tail.tolist() == [-math.inf]


def test_tail_is_exact_on_a_peaked_row():
    logits = torch.zeros(1, 300)
    logits[0, 7] = 40.0
    _, _, tail, _ = score_logits(logits, torch.tensor([7]), Wanted(k=1, usable=300))
    assert float(tail) == pytest.approx(math.log(299) - 40, rel=1e-5)


KEYED = [ScoringRow(row.ids, row.response_start, bytes([number]) * 16) for number, row in enumerate(ROWS)]
DRAWING = Wanted(k=6, usable=259, always_ids=(258,), samples=40)


def test_draws_are_the_same_in_any_batch_and_order(teacher):
    together = scored(teacher, KEYED, DRAWING)
    alone = scored(teacher, KEYED, DRAWING, batch_tokens=1)
    reverse = scored(teacher, KEYED[::-1], DRAWING, batch_tokens=12)
    for index, row in enumerate(KEYED):
        n = len(row.ids) - row.response_start
        mine = together[index]
        assert (mine.sample_ids.shape, mine.sample_ids.dtype) == ((n, 40), np.int32)
        assert (mine.sample_counts.sum(1) == 40).all()
        assert mine.sample_ids.max() < 259
        for other in (alone[index], reverse[len(KEYED) - 1 - index]):
            assert np.array_equal(mine.sample_ids, other.sample_ids)
            assert np.array_equal(mine.sample_counts, other.sample_counts)


def test_rows_of_other_keys_draw_other_ids(teacher):
    rows = [ScoringRow(ROWS[0].ids, 3, key) for key in (b"a", b"b")]
    first, second = scored(teacher, rows, DRAWING).values()
    assert not np.array_equal(first.sample_counts, second.sample_counts)
    assert np.array_equal(first.topk_logp, second.topk_logp)
    assert len({tuple(token) for token in first.sample_ids.tolist()}) == len(first.sample_ids)


def test_draws_need_a_key_and_are_none_unless_asked_for(teacher):
    with pytest.raises(DataError, match="row 0 has no key that its draws could depend on"):
        scored(teacher, ROWS, DRAWING)
    assert scored(teacher)[0].sample_ids is None


def test_a_nan_teacher_that_draws_is_an_error(tmp_path):
    model = tiny_llama()
    model.model.norm.weight.data[3] = math.nan
    model.save_pretrained(tmp_path / "nan")
    with pytest.raises(TeacherError, match="gives NaN on these rows"):
        scored(LocalTeacher(write_tokenizer(tmp_path / "nan"), device="cpu"), KEYED, DRAWING)


def test_bad_rows_are_refused(teacher):
    for row in (ScoringRow([1, 2], 0), ScoringRow([1, 2], 2), ScoringRow([], 0)):
        with pytest.raises(DataError, match="row 0 has no response to score"):
            scored(teacher, [row])
    for ids in ([1, 300], [300, 1], [-1, 1]):
        with pytest.raises(DataError, match="row 0 has an id that the teacher does not know"):
            scored(teacher, [ScoringRow(ids, 1)])
    with pytest.raises(DataError, match="the prefix has an id"):
        scored(teacher, prefix_ids=[300])
    with pytest.raises(ValueError, match="k must hold the answer's token and 1 ids"):
        Wanted(k=1, usable=300, always_ids=(258,))
    with pytest.raises(ValueError, match=r"must be in 0\.\.299: \[300\]"):
        Wanted(k=3, usable=300, call_opening_ids=(300,))


def test_fingerprint_follows_the_weights(tmp_path):
    first = LocalTeacher(write_model(tmp_path / "a"), device="cpu").fingerprint
    assert LocalTeacher(write_model(tmp_path / "b"), device="cpu").fingerprint == first
    assert LocalTeacher(write_model(tmp_path / "c", seed=1), device="cpu").fingerprint != first


def test_bf16_teacher_is_close(tmp_path, teacher):
    directory = write_model(tmp_path / "a")
    rough = scored(LocalTeacher(directory, device="cpu", dtype="bf16"), ROWS[:1])[0]
    exact = full_logp(ROWS[0])
    error = np.abs(rough.topk_logp - exact.gather(1, torch.from_numpy(rough.topk_ids).long()).numpy())
    assert rough.topk_logp.dtype == np.float32
    assert error.max() < 0.5


def test_a_nan_teacher_is_an_error(tmp_path):
    model = tiny_llama()
    model.model.norm.weight.data[3] = math.nan
    model.save_pretrained(tmp_path / "nan")
    with pytest.raises(TeacherError, match="gives NaN on these rows"):
        scored(LocalTeacher(write_tokenizer(tmp_path / "nan"), device="cpu"))


def test_a_sliding_window_refuses_a_prefix(tmp_path):
    directory = write_model(tmp_path / "m")
    config = json.loads((directory / "config.json").read_text())
    config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 8}
    (directory / "config.json").write_text(json.dumps(config))
    teacher = LocalTeacher(directory, device="cpu")
    assert len(scored(teacher)) == 4
    with pytest.raises(TeacherError, match=r"teacher\.demonstrations: must be 0"):
        scored(teacher, prefix_ids=[1])


def test_missing_or_damaged_teacher(tmp_path):
    for name in ("none", "none.gguf"):
        with pytest.raises(TeacherError, match=r"teacher\.model: no such file"):
            LocalTeacher(tmp_path / name)
    (tmp_path / "text.gguf").write_text("hello there")
    with pytest.raises(TeacherError, match="this is no GGUF file"):
        LocalTeacher(tmp_path / "text.gguf")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + bytes(8))
    with pytest.raises(TeacherError, match="cannot read the GGUF file"):
        LocalTeacher(tmp_path / "cut.gguf")
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    directory = write_model(tmp_path / "model")
    (directory / "model.safetensors").write_bytes(b"x")
    with pytest.raises(TeacherError, match=r"teacher\.model: cannot load the model"):
        LocalTeacher(directory)


def test_call_opening_ids():
    pieces = ["<", " <tool_call>", "tool", "  ", "<tool_call>{", "<too", "{", '{"name', None, ""]
    assert call_opening_ids(pieces, ["<tool_call>"]) == (0, 1, 4, 5)
    assert call_opening_ids(pieces, ["<tool_call>", '{"']) == (0, 1, 4, 5, 6, 7)


def test_token_batches_hold_every_row_once():
    lengths = np.random.default_rng(0).integers(1, 50, 200).tolist()
    batches = list(token_batches(lengths, 100))
    assert sorted(index for batch in batches for index in batch) == list(range(200))
    assert all(len(batch) * max(lengths[i] for i in batch) <= 100 for batch in batches)


def permuted(weight, heads):
    """Query and key rows in the order that GGUF keeps them for Llama."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path, seed=0):
    """A tiny Llama as llama.cpp's converter would write it, in fp32."""
    model = tiny_llama(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(3)
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(VOCAB)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<unused{i}>" for i in range(VOCAB - 260))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt2")
    writer.add_token_list([*byte_pieces(), *special, "ab"])
    writer.add_token_types([1] * 256 + [3] * len(special) + [1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(258)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 3)
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            array = permuted(array, 4 if "q_proj" in name else 2)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_gives_the_scores_of_its_model_and_is_converted_once(tmp_path, teacher):
    path = write_gguf(tmp_path / "tiny.gguf")
    converted = LocalTeacher(path, device="cpu")
    assert converted.directory == tmp_path / "tiny.hf"
    assert sorted(child.name for child in tmp_path.iterdir()) == ["tiny.gguf", "tiny.hf"]
    ours, theirs = scored(converted), scored(teacher)
    for index in ours:
        assert np.array_equal(ours[index].topk_ids, theirs[index].topk_ids)
        np.testing.assert_allclose(ours[index].topk_logp, theirs[index].topk_logp, atol=1e-4)
    made = (converted.directory / "model.safetensors").stat()
    assert convert_gguf(path, converted.directory) == converted.directory
    assert (converted.directory / "model.safetensors").stat() == made
    write_gguf(path, seed=1)
    convert_gguf(path, converted.directory)
    assert (converted.directory / "model.safetensors").stat() != made


def test_conversion_is_quiet(tmp_path, capfd):
    convert_gguf(write_gguf(tmp_path / "tiny.gguf"), tmp_path / "out")
    assert capfd.readouterr() == ("", "")


def test_a_conversion_replaces_no_directory_of_somebody_else(tmp_path):
    path, mine = write_gguf(tmp_path / "tiny.gguf"), tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="holds other files, which would be lost"):
        convert_gguf(path, mine)
    assert [file.name for file in mine.iterdir()] == ["thesis.txt"]
