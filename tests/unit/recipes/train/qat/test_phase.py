"""The phase by itself: its learning rate, its frozen scales, and what a checkpoint holds of it."""

from __future__ import annotations

import pytest
import torch
from qat_phases import begun, config
from quantized_models import batch, tiny_model, train

from kdfast.distributed.ranks import Ranks
from kdfast.errors import CheckpointError
from kdfast.qat import Action, frozen_scales, is_qat_applied
from kdfast.recipes.train.qat.phase import QatPhase
from kdfast.recipes.train.schedule import learning_rate


def test_its_learning_rate_is_halved_by_a_rollback_and_the_runs_own_once_it_gave_up():
    phase = begun()
    assert [round(phase.learning_rate(step), 3) for step in (10, 11, 12)] == [0.5, 1.0, 1.0]
    assert phase.recovery.checked(12, passed=False).action is Action.ROLL_BACK
    assert round(phase.learning_rate(12), 3) == 0.5
    phase.recovery.checked(12, passed=False)
    assert phase.recovery.checked(12, passed=False).action is Action.GIVE_UP
    phase.give_up()
    settings = phase.config
    assert phase.learning_rate(12) == learning_rate(12, 20, settings.optimizer)
    assert not is_qat_applied(phase.student)
    assert (phase.look(), phase.tensors()) == (None, {})


def test_scales_freeze_once_at_their_step_and_weights_stay_within_them():
    phase = begun("quant.freeze_fraction=0.5")
    assert [phase.freeze_when_due(step) for step in (13, 14, 15, 16)] == [False, False, True, False]
    scales = frozen_scales(phase.student)
    assert scales
    with torch.no_grad():
        for name, parameter in phase.student.named_parameters():
            if name in scales:
                parameter.mul_(2)
    phase.stepped(16, 1.0)
    for name, parameter in phase.student.named_parameters():
        if name in scales:
            assert bool((parameter.abs() <= 127 * scales[name].float()).all()), name
    assert not begun("quant.format=q4_0").freeze_when_due(19)


def test_a_phase_that_is_resumed_goes_on_as_it_was():
    phase = begun("quant.freeze_fraction=0.9")
    train(phase.student, 1, rate=0.1)
    phase.freeze_when_due(12)
    phase.check(12)
    phase.look()
    train(phase.student, 1, rate=0.1)
    other = tiny_model()
    other.load_state_dict(phase.student.state_dict())
    again = QatPhase.resume(phase.config, other, batch(), Ranks(), (phase.state(), phase.tensors()))
    assert again.state() == phase.state()
    assert again.tensors().keys() == phase.tensors().keys()
    assert all(torch.equal(one, again.tensors()[name]) for name, one in phase.tensors().items())
    assert (again.look(), again.checked_step, again.first_step) == (phase.look(), 12, 10)
    assert [again.check(14), again.previous] == [phase.check(14), phase.previous]


@pytest.mark.parametrize("lacking", ["recovery", "first", "checked_step"])
def test_a_damaged_state_is_the_checkpoints_fault(lacking: str):
    phase = begun()
    state = {name: value for name, value in phase.state().items() if name != lacking}
    with pytest.raises(CheckpointError, match="state of quantisation is damaged; resume from an older one"):
        QatPhase.resume(phase.config, tiny_model(), batch(), Ranks(), (state, phase.tensors()))


def test_other_ranks_than_the_first_watch_no_codes():
    one = QatPhase.begin(config(), tiny_model(), batch(), Ranks(rank=1, world=1), 10)
    assert one.watch is None
    assert one.look() is None
