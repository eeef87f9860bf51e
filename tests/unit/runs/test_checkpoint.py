import errno
import json
import resource

import pytest
import torch
from tiny_models import TEMPLATE, TURN_END, VOCAB, tiny_llama, write_tokenizer
from transformers import AutoModelForCausalLM

from kdfast.errors import CheckpointError
from kdfast.runs.checkpoint import Checkpoints, load_checkpoint, read_state, read_tensors
from kdfast.student import load_student, supervised_logits, write_student


@pytest.fixture
def checkpoints(tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer")

    def write(model, directory):
        write_student(model, directory, tokenizer=tokenizer, chat_template=TEMPLATE, turn_end=TURN_END)

    return Checkpoints(tmp_path / "run" / "checkpoints", write)


def adamw(model):
    return torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2, weight_decay=0.1)


def train(model, optimizer, steps):
    """Steps on random rows, so that the random state matters too."""
    for _ in range(steps):
        ids = torch.randint(VOCAB, (2, 12))
        logits = supervised_logits(model, ids, torch.ones_like(ids), torch.ones(2, 12, dtype=torch.bool))
        torch.nn.functional.cross_entropy(logits, ids.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_resumed_training_is_bit_equal(checkpoints, tied, frozen):
    model = tiny_llama(tied=tied).train()
    model.model.embed_tokens.requires_grad_(not frozen)
    optimizer = adamw(model)
    train(model, optimizer, 3)
    state = {"cursors": [3, 0], "best_loss": 0.1, "first": {"loss": 1 / 3}, "best_step": None}
    path = checkpoints.save(3, model, optimizer, state)
    train(model, optimizer, 4)

    torch.manual_seed(999)
    resumed = load_student(checkpoints.latest(), freeze_embeddings=frozen)
    fresh = adamw(resumed)
    assert load_checkpoint(path, resumed, fresh) == state == read_state(path)
    train(resumed, fresh, 4)
    assert weights(resumed).keys() == weights(model).keys()
    assert all(torch.equal(value, weights(model)[name]) for name, value in weights(resumed).items())


def test_a_checkpoint_is_a_hugging_face_directory_without_pickle(checkpoints):
    model = tiny_llama()
    path = checkpoints.save(1, model, adamw(model), {})
    loaded = AutoModelForCausalLM.from_pretrained(path)
    assert all(torch.equal(value, weights(model)[name]) for name, value in weights(loaded).items())
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json", ".jinja"}


def test_latest_ignores_what_a_kill_left_and_the_next_save_removes_it(checkpoints):
    assert checkpoints.latest() is None
    model = tiny_llama()
    checkpoints.save(9, model, adamw(model), {})
    half = checkpoints.directory / ".step_11.tmp-123"
    half.mkdir()
    (half / "state.json").write_text("{}")
    (checkpoints.directory / "step_12").mkdir()
    (checkpoints.directory / "step_x").mkdir()
    assert checkpoints.latest() == checkpoints.path(9)
    checkpoints.save(10, model, adamw(model), {})
    assert checkpoints.latest() == checkpoints.path(10)
    assert not half.exists()


def test_a_failed_save_leaves_the_old_checkpoint_and_nothing_else(checkpoints):
    model = tiny_llama()
    path = checkpoints.save(1, model, adamw(model), {"n": 1})

    def fail(model, directory):
        (directory / "part").write_text("half")
        raise OSError(errno.ENOSPC, "no space left")

    with pytest.raises(OSError, match="no space left"):
        Checkpoints(checkpoints.directory, fail).save(1, model, adamw(model), {"n": 2})
    assert list(checkpoints.directory.iterdir()) == [path]
    assert read_state(path) == {"n": 1}


def test_saving_a_step_again_replaces_it(checkpoints):
    model = tiny_llama()
    for n in (1, 2):
        checkpoints.save(5, model, adamw(model), {"n": n})
    assert read_state(checkpoints.path(5)) == {"n": 2}
    assert [path.name for path in checkpoints.directory.iterdir()] == ["step_5"]


def test_prune_keeps_the_newest_and_the_best(checkpoints):
    small = Checkpoints(checkpoints.directory, lambda model, directory: None)
    layer = torch.nn.Linear(2, 2)
    for step in (2, 4, 6, 10, 100):
        small.save(step, layer, adamw(layer), {})
    small.prune(2, {4})
    assert small.steps() == [4, 10, 100]
    small.prune(1)
    assert small.steps() == [100]


def test_remove_after_removes_what_a_run_that_went_back_undid(checkpoints):
    small = Checkpoints(checkpoints.directory, lambda model, directory: None)
    layer = torch.nn.Linear(2, 2)
    for step in (4, 6, 10, 100):
        small.save(step, layer, adamw(layer), {})
    small.remove_after(6)
    assert small.steps() == [4, 6]
    assert sorted(path.name for path in small.directory.iterdir()) == ["step_4", "step_6"]


def test_further_tensors_are_saved_with_it_even_if_they_share_memory(checkpoints):
    one = torch.arange(3, dtype=torch.int8)
    small = Checkpoints(checkpoints.directory, lambda model, directory: None)
    layer = torch.nn.Linear(2, 2)
    path = small.save(4, layer, adamw(layer), {}, further={"more.safetensors": {"a": one, "b": one}})
    read = read_tensors(path, "more.safetensors")
    assert {name: value.tolist() for name, value in read.items()} == {"a": [0, 1, 2], "b": [0, 1, 2]}
    assert read_tensors(path, "other.safetensors") == {}
    file = path / "more.safetensors"
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(CheckpointError, match=r"damaged \(more.safetensors\)"):
        read_tensors(path, "more.safetensors")


def damage(path, how):
    state = path / "state.json"
    if how == "cut weights":
        (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-1])
    elif how == "no optimizer":
        (path / "optimizer.safetensors").unlink()
    elif how == "garbled optimizer":
        size = (path / "optimizer.safetensors").stat().st_size
        (path / "optimizer.safetensors").write_bytes(b"\xff" * size)
    elif how == "no state":
        state.unlink()
    elif how == "cut state":
        state.write_text(state.read_text()[:40])
    elif how == "empty state":
        state.write_text('{"format_version": 1}')


@pytest.mark.parametrize(
    "how", ["cut weights", "no optimizer", "garbled optimizer", "no state", "cut state", "empty state"]
)
def test_a_damaged_checkpoint_is_refused_with_a_remedy(checkpoints, how):
    model = tiny_llama()
    optimizer = adamw(model)
    train(model, optimizer, 1)
    path = checkpoints.save(1, model, optimizer, {})
    damage(path, how)
    with pytest.raises(CheckpointError, match=r"damaged .*; remove it to go on from an older one"):
        load_checkpoint(path, model, optimizer)


def test_missing_other_version_and_other_model_are_refused(checkpoints, tmp_path):
    model = tiny_llama()
    optimizer = adamw(model)
    train(model, optimizer, 1)
    path = checkpoints.save(1, model, optimizer, {})
    with pytest.raises(CheckpointError, match="no checkpoint there; start the run without --resume"):
        read_state(tmp_path / "none")
    for other in (tiny_llama(layers=2), tiny_llama(intermediate_size=32)):
        with pytest.raises(CheckpointError, match="of another model"):
            load_checkpoint(path, other, adamw(other))
    document = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(document | {"format_version": 2}))
    with pytest.raises(CheckpointError, match="format version 2, this kdfast reads 1"):
        read_state(path)
    with pytest.raises(CheckpointError, match="checkpoint: no such file"):
        load_student(tmp_path / "none")


def test_a_full_disk_is_an_os_error_and_leaves_nothing(tmp_path):
    layer = torch.nn.Linear(200, 200)
    optimizer = adamw(layer)
    layer(torch.ones(1, 200)).sum().backward()
    optimizer.step()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            Checkpoints(tmp_path / "all", lambda model, directory: None).save(1, layer, optimizer, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert list((tmp_path / "all").iterdir()) == []
