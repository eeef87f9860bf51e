"""Logits of llama.cpp against torch: the same weights pass, other ones fail by name; nothing passes unmeasured."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_gguf import write_llama
from tiny_models import tiny_llama, write_tokenizer

from kdfast.export.parity import logits
from kdfast.export.parity.logits import check_logits, choose
from kdfast.export.parity.records import ParityRecord
from kdfast.llama_cpp import LlamaCppModel


def record(line, ids, start, shape=64):
    return ParityRecord(
        file=Path("x.jsonl"), line=line, shape=shape, ids=tuple(ids), start=start, text="", answer=""
    )


def sure_model(scale=20.0):
    """A random model whose likeliest token is far ahead."""
    model = tiny_llama(layers=2)
    with torch.no_grad():
        model.lm_head.weight.mul_(scale)
    return model


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    directory = tmp_path_factory.mktemp("logits")
    write_tokenizer(directory)
    return write_llama(directory / "model.gguf", sure_model(), directory)


@pytest.fixture
def runtime(file):
    with LlamaCppModel(file, context=128, threads=1) as model:
        yield model


RECORDS = [
    record(1, range(5, 45), 20),
    record(2, range(50, 90), 30),
    record(3, range(90, 190), 70, shape=128),
]


def slow_kl(model, ids, runtime):
    """KL(torch || runtime) at every position, by the definition."""
    runtime.clear()
    theirs = torch.from_numpy(runtime.decode(ids, every=True)).double().log_softmax(-1)
    with torch.no_grad():
        ours = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return (ours.exp() * (ours - theirs)).sum(-1), ours


def test_the_same_weights_pass_and_the_figures_are_the_definition_s(runtime):
    done, model = [], sure_model()
    found = check_logits(
        model, runtime, RECORDS[:1], decoded_steps=8, on_progress=lambda *at: done.append(at)
    )
    assert (found.status, found.problems, found.reason) == ("passed", (), "")
    figures = found.figures
    assert (figures["positions"], figures["records"], figures["decoded_positions"]) == (20, 1, 8)
    kl, ours = slow_kl(model, list(RECORDS[0].ids[:-1]), runtime)
    assert figures["mean_kl"] == pytest.approx(float(kl[19:].mean()), rel=1e-3, abs=1e-9)
    assert figures["max_kl"] == pytest.approx(float(kl[19:].max()), rel=1e-3, abs=1e-9)
    best = ours[19:].topk(2).values
    forced_sure = int((best[:, 0] - best[:, 1] > logits.MARGIN).sum())
    assert forced_sure <= figures["top1_positions"] <= forced_sure + 8
    assert figures["top1_equal"] == 1.0
    assert figures["centred_cosine_min"] > 0.999
    assert done == [(1, 1)]


def test_other_weights_fail_and_the_place_is_named(tmp_path):
    write_tokenizer(tmp_path)
    model = sure_model()
    swapped = sure_model()
    with torch.no_grad():
        swapped.model.layers[0].self_attn.v_proj.weight.copy_(
            swapped.model.layers[0].self_attn.v_proj.weight.flip(0) * 4
        )
    file = write_llama(tmp_path / "other.gguf", swapped, tmp_path)
    with LlamaCppModel(file, context=128, threads=1) as runtime:
        found = check_logits(model, runtime, RECORDS, show_token=lambda token: f"<{token}>")
    assert found.failed
    assert found.figures["mean_kl"] > logits.MAX_MEAN_KL
    assert "mean KL of the answers is" in found.problems[0]
    assert "at line " in found.problems[0]
    assert "torch expects <" in found.problems[0]


def test_without_a_sure_position_top_1_is_not_measured_and_does_not_pass(tmp_path):
    write_tokenizer(tmp_path)
    flat = sure_model(scale=1e-4)
    with LlamaCppModel(
        write_llama(tmp_path / "flat.gguf", flat, tmp_path), context=128, threads=1
    ) as runtime:
        found = check_logits(flat, runtime, RECORDS)
    assert found.status == "not_measured"
    assert "top-1 is not measured" in found.reason
    assert "top1_equal" not in found.figures
    assert found.figures["mean_kl"] < logits.MAX_MEAN_KL


def test_nan_fails_and_names_who_gave_it(runtime):
    broken = sure_model()
    with torch.no_grad():
        broken.lm_head.weight[3] = np.nan
    found = check_logits(broken, runtime, RECORDS)
    assert found.failed
    assert "torch gives NaN or infinite logits: line 1, position 19" in found.problems[0]
    assert "mean_kl" not in found.figures


def test_another_vocabulary_fails(runtime):
    found = check_logits(tiny_llama(layers=2, vocab_size=400), runtime, RECORDS[:1])
    assert found.failed
    assert "another vocabulary: torch has 400 logits, it has 300" in found.problems[0]


def test_no_record_that_fits_is_not_measured(runtime):
    long = [record(1, [5] * 200, 50, shape=256)]
    for records in ([], long):
        found = check_logits(sure_model(), runtime, records)
        assert found.status == "not_measured"
        assert "fits the runtime's context: 128 tokens" in found.reason
        assert found.figures == {}


def test_each_shape_gives_a_record_before_one_gives_two():
    records = [record(line, range(40), 30, shape=64 if line % 2 else 128) for line in range(1, 30)]
    chosen = choose(records, 1000)
    assert [one.line for one in chosen] == [1, 2, 3, 4, 5, 6, 7]  # 7 x 10 positions
    assert {one.shape for one in chosen[:2]} == {64, 128}
    assert sum(len(one.ids) - one.start for one in chosen) >= logits.POSITIONS
    assert len(chosen) <= logits.RECORDS


def test_the_mode_of_the_model_is_kept(runtime):
    model = sure_model().train()
    check_logits(model, runtime, RECORDS[:1], decoded_steps=2)
    assert model.training
