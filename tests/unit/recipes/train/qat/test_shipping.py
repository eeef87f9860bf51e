"""What ships: q * s with its table, the scales of the step whose weights it has; or float after a failure."""

from __future__ import annotations

from pathlib import Path

import torch
from qat_phases import begun, config
from quantized_models import train

from kdfast.qat import Action, freeze_scales
from kdfast.quantized import quantize
from kdfast.recipes.train.qat.phase import FILE, QatPhase
from kdfast.recipes.train.qat.shipping import Shipped, few_codes_warning, ship
from kdfast.runs.checkpoint import Checkpoints


def checkpoints(path: Path) -> Checkpoints:
    return Checkpoints(path, lambda model, directory: None)


def saved(phase: QatPhase, path: Path, step: int) -> Checkpoints:
    some = checkpoints(path)
    optimizer = torch.optim.AdamW(phase.student.parameters())
    some.save(step, phase.student, optimizer, {}, further={FILE: phase.tensors()})
    return some


def test_the_student_becomes_codes_times_scales(tmp_path: Path):
    phase = begun()
    train(phase.student, 1, rate=0.1)
    latent = {name: one.clone() for name, one in phase.student.state_dict().items()}
    shipped = ship(phase.student, phase, checkpoints(tmp_path), 20, 20)
    assert (shipped.status, shipped.failed, shipped.reasons) == ("done", False, ())
    assert shipped.table is not None
    for name, one in shipped.table.tensors.items():
        assert torch.equal(one.codes, quantize(latent[name], "int8_channel").codes)
        assert torch.equal(phase.student.state_dict()[name], one.dequantize())
    origin = shipped.origin(phase.config)
    assert (origin["qat"], origin["format"], origin["table"]) == (
        "done",
        "int8_channel",
        shipped.table.fingerprint(),
    )


def test_weights_of_an_older_step_ship_with_that_steps_scales(tmp_path: Path):
    phase = begun()
    some = saved(phase, tmp_path, 12)  # not frozen yet
    latent = {name: one.clone() for name, one in phase.student.state_dict().items()}
    train(phase.student, 1, rate=0.5)
    freeze_scales(phase.student)
    phase.student.load_state_dict(latent)
    table = ship(phase.student, phase, some, 12, 20).table
    assert table is not None
    for name, one in table.tensors.items():
        assert torch.equal(one.scales, quantize(latent[name], "int8_channel").scales)


def test_what_was_given_up_is_float_and_says_why(tmp_path: Path):
    phase = begun()
    latent = {name: one.clone() for name, one in phase.student.state_dict().items()}
    decisions = [phase.recovery.checked(12, passed=False, reasons=["cosine"]).action for _ in range(3)]
    assert decisions[-1] is Action.GIVE_UP
    phase.give_up()
    shipped = ship(phase.student, phase, checkpoints(tmp_path), 20, 20)
    assert (shipped.failed, shipped.table, shipped.changed_fraction) == (True, None, None)
    assert [reason.endswith("cosine") for reason in shipped.reasons] == [True] * 3
    assert shipped.origin(phase.config) == {"qat": "failed", "reasons": list(shipped.reasons)}
    assert all(torch.equal(one, latent[name]) for name, one in phase.student.state_dict().items())


def test_a_phase_that_changed_almost_nothing_is_warned_of():
    def told(changed: float | None) -> str:
        return few_codes_warning(
            Shipped(status="done", reasons=(), changed_fraction=changed, table=None), config()
        )

    assert told(0.0024).startswith("quantisation-aware training changed 0.24% of the codes")
    assert (told(0.01), told(None)) == ("", "")
