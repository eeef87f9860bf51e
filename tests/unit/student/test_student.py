import json

import pytest
import torch
from tiny_models import TEMPLATE, TURN_END, VOCAB, tiny_llama, write_model, write_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from kdfast.config import config_from_dict
from kdfast.config.arch import ArchConfig
from kdfast.errors import ConfigError, DataError
from kdfast.student import (
    activation_bytes,
    build_student,
    check_vocabulary,
    chosen_layers,
    estimate,
    hidden_and_head,
    resolve_device,
    save_student,
    supervised_logits,
)

SCRATCH = ArchConfig(d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=64, vocab_size=VOCAB)


def scratch(seed=0, **options):
    return build_student(SCRATCH, max_position_embeddings=64, seed=seed, **options)


def same_weights(left, right):
    pairs = zip(left.state_dict().items(), right.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_scratch_is_seeded_and_leaves_the_global_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert same_weights(scratch(1), scratch(1))
    assert not same_weights(scratch(1), scratch(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_scratch_follows_the_config():
    arch = ArchConfig(
        d_model=32,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        head_dim=16,
        d_ff=48,
        rope_theta=5000.0,
        norm_eps=1e-4,
        tie_word_embeddings=True,
    )
    model = build_student(arch, vocab_size=111, max_position_embeddings=77)
    config = model.config
    assert (config.vocab_size, config.max_position_embeddings, config.head_dim) == (111, 77, 16)
    assert (config.intermediate_size, config.num_key_value_heads, config.rms_norm_eps) == (48, 2, 1e-4)
    assert config.rope_parameters["rope_theta"] == 5000.0
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.training
    with pytest.raises(ConfigError, match=r"known for a student from scratch: \['vocab_size'\]"):
        build_student(arch, max_position_embeddings=77)


def test_all_teacher_layers_give_the_teacher(tmp_path):
    directory = write_model(tmp_path / "teacher")
    student = build_student(ArchConfig(init="teacher"), teacher_dir=directory)
    assert same_weights(student, tiny_llama())
    assert same_weights(build_student(ArchConfig(init=str(directory))), student)


@pytest.mark.parametrize(("layers", "kept"), [(2, [0, 4]), (3, [0, 2, 4]), ((1, 3), [1, 3])])
def test_chosen_teacher_layers_are_copied_and_the_config_adapted(tmp_path, layers, kept):
    directory = write_model(tmp_path / "teacher", layers=5)
    student = build_student(ArchConfig(init="teacher", layers=layers), teacher_dir=directory)
    teacher = tiny_llama(layers=5)
    assert student.config.num_hidden_layers == len(kept)
    for mine, theirs in zip(student.model.layers, kept, strict=True):
        assert same_weights(mine, teacher.model.layers[theirs])
    assert [layer.self_attn.layer_idx for layer in student.model.layers] == list(range(len(kept)))
    # generation with a KV cache equals the forward pass without one
    ids = torch.arange(1, 7)[None]  # without the padding id 0
    with torch.no_grad():
        out = student.eval().generate(
            ids, max_new_tokens=4, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        assert torch.equal(out[0, 6:], student(out, use_cache=False).logits[0, 5:-1].argmax(1))
    student.save_pretrained(tmp_path / "cut")
    assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path / "cut"), student)


def test_evenly_spread_layers():
    assert chosen_layers(8, 30) == [0, 4, 8, 12, 17, 21, 25, 29]
    assert chosen_layers(30, 30) == chosen_layers(None, 30) == list(range(30))
    for bad in (31, (30,), ()):
        with pytest.raises(ConfigError, match=r"arch\.layers: the model has"):
            chosen_layers(bad, 30)


@pytest.mark.parametrize("tied", [True, False])
def test_frozen_embeddings_get_no_gradient(tmp_path, tied):
    directory = write_model(tmp_path / "teacher", tied=tied)
    student = build_student(ArchConfig(init="teacher", freeze_embeddings=True), teacher_dir=directory)
    frozen = [name for name, parameter in student.named_parameters() if not parameter.requires_grad]
    assert frozen == ["model.embed_tokens.weight"]
    ids = torch.arange(6)[None]
    supervised_logits(student, ids, torch.ones_like(ids), ids > 2).sum().backward()
    assert student.model.embed_tokens.weight.grad is None
    assert (student.lm_head.weight.grad is None) == tied


def test_untying_copies_and_tying_is_refused(tmp_path):
    tied = write_model(tmp_path / "tied", tied=True)
    student = build_student(ArchConfig(init=str(tied), tie_word_embeddings=False))
    assert torch.equal(student.lm_head.weight, student.model.embed_tokens.weight)
    student.lm_head.weight.data.zero_()
    assert bool(student.model.embed_tokens.weight.any())
    student.save_pretrained(tmp_path / "untied")
    assert not bool(AutoModelForCausalLM.from_pretrained(tmp_path / "untied").lm_head.weight.any())
    with pytest.raises(ConfigError, match="throw away the loaded model's output layer"):
        build_student(ArchConfig(init=str(tmp_path / "untied"), tie_word_embeddings=True))


def break_directory(directory, how):
    weights = directory / "model.safetensors"
    config = directory / "config.json"
    if how == "no config":
        config.unlink()
    elif how == "bad config":
        config.write_text("{")
    elif how == "bad value":
        config.write_text(config.read_text().replace('"num_hidden_layers": 3', '"num_hidden_layers": "x"'))
    elif how == "other family":
        config.write_text(json.dumps({"model_type": "gpt2"}))
    elif how == "no weights":
        weights.unlink()
    elif how == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "missing layer":
        config.write_text(config.read_text().replace('"num_hidden_layers": 3', '"num_hidden_layers": 4'))
    elif how == "other width":
        config.write_text(config.read_text().replace('"intermediate_size": 64', '"intermediate_size": 96'))
    elif how == "pickle only":
        weights.unlink()
        torch.save({}, directory / "pytorch_model.bin")


@pytest.mark.parametrize(
    "how",
    [
        "no config",
        "bad config",
        "bad value",
        "other family",
        "no weights",
        "cut weights",
        "missing layer",
        "other width",
        "pickle only",
    ],
)
def test_a_damaged_directory_is_one_clear_error(tmp_path, how):
    directory = write_model(tmp_path / "model")
    break_directory(directory, how)
    with pytest.raises(ConfigError, match=r"^arch\.init: ") as caught:
        build_student(ArchConfig(init=str(directory)))
    assert "\n" not in str(caught.value)
    assert how == "other family" or str(caught.value).endswith(str(directory))


def test_a_missing_directory_is_one_clear_error(tmp_path):
    with pytest.raises(ConfigError, match=r"arch\.init: no such file or directory"):
        build_student(ArchConfig(init=str(tmp_path / "none")))


def test_supervised_logits_equal_the_full_models():
    model = scratch().eval()
    ids = torch.randint(VOCAB, (3, 12), generator=torch.Generator().manual_seed(0))
    attention = torch.tensor([[1] * 9 + [0] * 3, [1] * 5 + [0] * 7, [1] * 7 + [0] * 5])
    mask = torch.zeros(3, 12, dtype=torch.bool)
    mask[0, 3:8] = mask[1, 2:4] = mask[2, 6] = True
    with torch.no_grad():
        full = model(input_ids=ids, attention_mask=attention).logits[mask]
        mine = supervised_logits(model, ids, attention, mask)
        hidden, weight = hidden_and_head(model, ids, attention)
    assert mine.shape == (8, VOCAB)
    torch.testing.assert_close(mine, full, rtol=1e-5, atol=1e-6)
    assert hidden.shape == (3, 9, 32)
    torch.testing.assert_close(hidden[mask[:, :9]] @ weight.T, full, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert supervised_logits(model, ids, attention, mask & False).shape == (0, VOCAB)


def test_padding_does_not_matter_and_left_padding_is_refused():
    model = scratch().eval()
    ids = torch.arange(10)[None]
    mask = ids == 4
    with torch.no_grad():
        short = supervised_logits(model, ids, (ids < 6).long(), mask)
        other = supervised_logits(model, torch.where(ids < 6, ids, 7), (ids < 6).long(), mask)
    assert torch.equal(short, other)
    with pytest.raises(ValueError, match="padded on the right"):
        supervised_logits(model, ids, (ids > 2).long(), mask)


def test_saved_student_loads_with_hf_tools(tmp_path):
    model = scratch()
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    settings = {"chat_template": "not this one", "unk_token": "<|endoftext|>", "local_files_only": False}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings))
    for _ in range(2):  # a second time replaces the first
        save_student(
            model,
            tmp_path / "run" / "student",
            tokenizer=tokenizer,
            chat_template=TEMPLATE,
            turn_end=TURN_END,
        )
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["student"]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "student")
    assert same_weights(loaded, model)
    assert (loaded.generation_config.eos_token_id, loaded.generation_config.pad_token_id) == (258, 258)
    hf = AutoTokenizer.from_pretrained(tmp_path / "run" / "student")
    assert (hf.eos_token, hf.eos_token_id, hf.unk_token) == (TURN_END, 258, "<|endoftext|>")
    messages = [{"role": "user", "content": "hé"}]
    tool = {
        "type": "function",
        "function": {"name": "f", "description": "", "parameters": {"type": "object"}},
    }
    text = hf.apply_chat_template(messages, tools=[tool], add_generation_prompt=True, tokenize=False)
    assert text.startswith('<tools>{"type": "function"')
    assert text.endswith("<|im_start|>user\nhé<|im_end|>\n<|im_start|>assistant\n")
    ids = hf(text, return_tensors="pt")
    assert hf.decode(ids.input_ids[0]) == text
    assert loaded.generate(**ids, max_new_tokens=2, do_sample=False).shape[1] > ids.input_ids.shape[1]


def test_save_needs_the_turn_end_and_leaves_nothing_behind(tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer", extra=("<|endoftext|>",))
    with pytest.raises(DataError, match=r"no token for the end of a turn: '<\|im_end\|>'"):
        save_student(
            scratch(), tmp_path / "run" / "s", tokenizer=tokenizer, chat_template="", turn_end=TURN_END
        )
    assert list((tmp_path / "run").iterdir()) == []


def test_save_takes_a_single_tokenizer_file(tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer") / "tokenizer.json"
    save_student(scratch(), tmp_path / "s", tokenizer=tokenizer, chat_template=TEMPLATE, turn_end=TURN_END)
    assert AutoTokenizer.from_pretrained(tmp_path / "s").encode("ab") == [64, 65]


def test_check_vocabulary(tmp_path):
    own = write_tokenizer(tmp_path / "own")
    longer = write_tokenizer(tmp_path / "longer", extra=("<|endoftext|>", "<|im_start|>", TURN_END, "<x>"))
    other = write_tokenizer(tmp_path / "other", extra=("<|endoftext|>", "<s>", TURN_END))
    assert check_vocabulary(own, own, student_size=259, teacher_size=320) == 259
    assert check_vocabulary(own, longer, student_size=300, teacher_size=300) == 259
    assert check_vocabulary(longer / "tokenizer.json", own, student_size=260, teacher_size=259) == 259
    with pytest.raises(
        DataError, match=r"id 257 is '<\|im_start\|>' to the student and '<s>' to the teacher"
    ):
        check_vocabulary(own, other, student_size=300, teacher_size=300)
    with pytest.raises(
        DataError, match=r"the teacher's tokenizer has more ids than the model has rows.*259 > 258"
    ):
        check_vocabulary(own, own, student_size=259, teacher_size=258)
    with pytest.raises(DataError, match=r"none/?.*: cannot read the tokenizer file: No such file"):
        check_vocabulary(own, tmp_path / "none", student_size=300, teacher_size=300)
    (own / "tokenizer.json").write_text("[]")
    with pytest.raises(DataError, match=r"no tokenizer\.json"):
        check_vocabulary(own, other, student_size=300, teacher_size=300)


def test_resolve_device(monkeypatch):
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert resolve_device("auto").type == expected
    with pytest.raises(ConfigError, match=r"^device: this machine has cpu; .*: cuda"):
        resolve_device("cuda")
    with pytest.raises(ConfigError, match=r"^train.device: this machine has cpu; .*: mps"):
        resolve_device("mps", key="train.device")


def test_layers_beyond_the_model_are_refused_before_its_weights_are_read(tmp_path):
    directory = write_model(tmp_path / "teacher")
    (directory / "model.safetensors").unlink()
    for layers, message in ((4, "the model has 3 layers"), ((0, 3), "the model has layers 0 to 2")):
        with pytest.raises(ConfigError, match=rf"^arch.layers: {message}"):
            build_student(ArchConfig(init="teacher", layers=layers), teacher_dir=directory)


def config_for(arch, **sections):
    return config_from_dict(
        {"arch": arch, "data": {"train": "t.jsonl", "tokenizer": "t"}, "io": {"run_dir": "r"}, **sections}
    )


def test_estimate_of_the_full_size_recipe():
    arch = {
        "d_model": 4096,
        "n_layers": 36,
        "n_heads": 32,
        "n_kv_heads": 8,
        "d_ff": 16384,
        "vocab_size": 32000,
    }
    teacher = {"model": "t", "store": "s", "k": 32}
    figures = estimate(config_for(arch, teacher=teacher, train={"micro_batch_size": 1}))
    attention = 4096 * 4096 * 2 + 2 * 4096 * 1024
    expected = 36 * (attention + 3 * 4096 * 16384 + 2 * 4096) + 4096 + 2 * 32000 * 4096
    assert figures["parameters"] == figures["trainable_parameters"] == expected
    assert figures["checkpoint_bytes"] == 12 * expected
    assert figures["teacher_store_bytes_per_token"] == 196
    sampling = estimate(config_for(arch, teacher=teacher | {"samples": 8}, train={"micro_batch_size": 1}))
    assert sampling["teacher_store_bytes_per_token"] == 244


def test_estimate_of_the_models_beside_the_student(tmp_path):
    directory = write_model(tmp_path / "teacher")
    arch = {"d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 64, "vocab_size": 300}
    alone = estimate(config_for(arch, teacher={"model": str(directory), "store": "s"}))
    assert not {"live_teacher_bytes", "self_teacher_bytes"} & alone.keys()
    teacher = {"model": str(directory), "live": True}
    size = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(directory).parameters())
    for dtype, width in (("fp32", 4), ("bf16", 2)):
        assert (
            estimate(config_for(arch, teacher=teacher | {"dtype": dtype}))["live_teacher_bytes"]
            == width * size
        )
    quant = {"enabled": True, "self_kd_weight": 1.0}
    figures = estimate(config_for(arch, quant=quant))
    assert figures["self_teacher_bytes"] == figures["weights_bytes"]
    assert "self_teacher_bytes" not in estimate(config_for(arch, quant=quant | {"enabled": False}))
    with pytest.raises(ConfigError, match=r"^teacher.model: "):
        estimate(config_for(arch, teacher={"model": str(tmp_path / "nowhere"), "live": True}))


def test_estimate_of_a_cut_teacher_with_frozen_embeddings(tmp_path):
    directory = write_model(tmp_path / "teacher", tied=True)
    arch = {"init": "teacher", "layers": 2, "freeze_embeddings": True}
    figures = estimate(config_for(arch, teacher={"model": str(directory), "store": "s"}))
    student = build_student(ArchConfig(**arch), teacher_dir=directory)
    assert figures["parameters"] == sum(p.numel() for p in student.parameters())
    assert figures["optimizer_bytes"] == 8 * (figures["parameters"] - 32 * VOCAB)


@pytest.mark.parametrize("sizes", [(32, 4, 2, 64), (64, 4, 4, 128), (48, 6, 2, 256)])
def test_estimated_activations_are_those_that_autograd_keeps(sizes):
    d_model, n_heads, n_kv_heads, d_ff = sizes
    arch = ArchConfig(d_model=d_model, n_layers=3, n_heads=n_heads, n_kv_heads=n_kv_heads, d_ff=d_ff)
    model = build_student(arch, vocab_size=VOCAB, max_position_embeddings=64)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    ids = torch.zeros(2, 64, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden_and_head(model, ids, torch.ones_like(ids))
    measured = sum(size for size, _ in kept.values())
    assert activation_bytes(model.config, rows=2, length=64) == pytest.approx(measured, rel=0.1)
