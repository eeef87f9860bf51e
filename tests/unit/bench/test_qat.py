"""The benchmark of quantisation: every contender trains the same model, and what is absent says why."""

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _root_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def tiny():
    from bench.qat import Size

    return Size(layers=1, hidden=32, intermediate=64, heads=2, vocab=50, rows=2, width=21, micro_batches=2)


def test_every_contender_is_measured_or_says_why_not():
    from bench.qat import CONTENDERS, FLOAT, machine, measure, table

    found = measure(tiny(), rounds=2)
    assert list(found) == list(CONTENDERS)
    assert found[FLOAT]["ratio"] == 1
    for name, one in found.items():
        if name.startswith("torchao") and "absent" in one:
            assert "pip install torchao" in one["absent"]
        else:
            assert len(one["seconds"]) == 2
    document = {"machine": machine(1), "size": vars(tiny()), "rounds": 2, "contenders": found}
    rows = [line for line in table(document).splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == ["contender", *CONTENDERS]


def test_contenders_start_from_one_model_and_quantise_every_linear_layer():
    from bench.qat import CONTENDERS, FLOAT, AbsentError, Trainer

    ids = torch.arange(42).view(2, 21)
    outputs = {}
    for name, prepare in CONTENDERS.items():
        try:
            trainer = Trainer(tiny(), prepare)
        except AbsentError:
            continue
        with torch.no_grad():
            outputs[name] = trainer.model(input_ids=ids, use_cache=False).logits
        assert torch.equal(
            trainer.model.model.embed_tokens(ids),
            Trainer(tiny(), CONTENDERS[FLOAT]).model.model.embed_tokens(ids),
        )
    plain = outputs.pop(FLOAT)
    for name, logits in outputs.items():
        error = float((logits - plain).norm() / plain.norm())
        assert 0 < error < (0.3 if "q4_0" in name else 0.03), name
