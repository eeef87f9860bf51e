"""A micro-batch on its way: nothing waits for the device, terms may learn, and what is wrong is found in time."""

from __future__ import annotations

import copy
import math
import traceback
from collections import Counter
from dataclasses import replace
from typing import Any

import loss_batches
import pytest
import torch
from loss_batches import EOS, OPEN
from tiny_models import tiny_llama
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kdfast.config import KDConfig
from kdfast.config.quant import QuantConfig
from kdfast.distributed.ranks import Ranks
from kdfast.errors import DivergedError
from kdfast.losses import LossSettings, State, StepWeights, plan_batch
from kdfast.qat import apply_qat_to_model
from kdfast.quantized import plan_model, rounded_weight
from kdfast.recipes.train.live_teacher import FrozenTeacher
from kdfast.recipes.train.objective import Objective
from kdfast.recipes.train.step import Runner, StudentLoss
from kdfast.runs.checkpoint import Checkpoints, load_checkpoint

VOCAB = 23
EVERYTHING: dict[str, Any] = {
    "sampled_kl_weight": 0.2,
    "length_weight": 0.05,
    "early_tool_ce_weight": 0.01,
    "early_tool_prior_weight": 0.07,
    "early_tool_preamble_weight": 0.05,
    "early_tool_negative_weight": 0.03,
    "hidden_state_weight": 0.5,
    "hidden_state_student_layers": (1, -1),
    "hidden_state_teacher_layers": (2, -1),
}


def batch(rows: int = 6, seed: int = 0) -> dict[str, Tensor]:
    """A batch with every field that the loop needs."""
    some = loss_batches.batch(rows, seed)
    length = some["response_start"] + some["response_length"]
    columns = torch.arange(some["labels"].shape[1])
    g = torch.Generator().manual_seed(seed)
    return some | {
        "attention_mask": (columns < length[:, None]).long(),
        "input_ids": torch.randint(0, VOCAB, some["labels"].shape, generator=g),
    }


def llama(seed: int, width: int = 32) -> Any:
    return tiny_llama(seed=seed, layers=2, vocab_size=VOCAB, hidden_size=width, eos_token_id=EOS)


def runner(teacher: Any = None, **kd: Any) -> Runner:
    given = LossSettings(kd=KDConfig(**kd), eos_ids=(EOS,), opening_ids=OPEN, prefix_tokens=4)
    objective = Objective(settings=given)
    torch.manual_seed(3)  # the projectors' first weights
    model = StudentLoss(llama(0).train(), objective, teacher)
    return Runner(model, objective, torch.device("cpu"), False, Ranks())


class _Waits(TorchDispatchMode):
    """Counts what would wait for a device: values, or numbers of values, that the CPU asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2"):
            self._add(name)
        indices = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        if any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in indices):
            self._add("boolean index")
        return func(*args, **(kwargs or {}))

    def _add(self, name: str) -> None:
        # transformers asks once in each forward whether rows are packed, before it makes its causal mask
        theirs = any(frame.filename.endswith("masking_utils.py") for frame in traceback.extract_stack())
        self.found[f"transformers: {name}" if theirs else name] += 1


@pytest.mark.parametrize("aggregate", ["ema", "row"])
@pytest.mark.parametrize("average", [None, 0.5])
def test_nothing_in_a_micro_batch_waits_for_the_device(aggregate: str, average: float | None) -> None:
    some = runner(llama(1, 48), **EVERYTHING, length_aggregate=aggregate)
    given, states = batch(), {"length": {"average": average}}
    plan = some.plan(given)
    step = StepWeights(some.objective.weights(0), plan.counts, states)
    with _Waits() as waits:
        loss = some.loss(some.model, given, plan, step)
        loss.total.backward()
    ours = {name: count for name, count in waits.found.items() if not name.startswith("transformers")}
    assert ours == {}
    with _Waits() as waits:
        float(loss.total.detach())
    assert waits.found == {"_local_scalar_dense": 1}  # so that the count itself is known to work


def test_the_whole_step_s_numbers_are_those_of_its_micro_batches_however_it_is_split() -> None:
    whole, reports = batch(), []
    for size in (6, 2, 1):
        some = runner(llama(1, 48), **EVERYTHING)
        parts = [
            {name: value[start : start + size] for name, value in whole.items()}
            for start in range(0, 6, size)
        ]
        states: dict[str, State] = {"length": {"average": 0.5}}
        report = some.step(parts, 0, states)
        gradients = torch.cat([p.grad.flatten() for p in some.model.parameters() if p.grad is not None])
        reports.append((report, gradients))
    for report, gradients in reports[1:]:
        assert report.values == pytest.approx(reports[0][0].values, rel=1e-4, abs=1e-6)
        assert report.states["length"]["average"] == pytest.approx(reports[0][0].states["length"]["average"])
        torch.testing.assert_close(gradients, reports[0][1], rtol=1e-3, atol=1e-6)


def test_position_0_and_padding_do_not_count_for_hidden_states() -> None:
    some = batch()
    settings = LossSettings(kd=KDConfig(hidden_state_weight=1.0), eos_ids=(EOS,))
    expected = sum(int(length) - 1 for length in some["attention_mask"].sum(1))
    assert plan_batch(some, settings).counts["hidden_state"] == expected
    # two segments in a row: each has a position 0
    packed = some | {"position_ids": torch.arange(12).remainder(3).expand(6, 12)}
    kept = (some["attention_mask"] * (torch.arange(12) % 3 > 0)).sum()
    assert plan_batch(packed, settings).counts["hidden_state"] == int(kept)


def test_a_projector_learns_and_the_teacher_does_not() -> None:
    teacher = llama(1, 48)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    some = runner(teacher, **EVERYTHING)
    assert sorted(name for name, _ in some.bare.terms.named_parameters()) == [
        "hidden_state.0.weight",
        "hidden_state.1.weight",
    ]
    optimizer = torch.optim.AdamW(some.model.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        losses.append(some.step([batch()], 0).values["hidden_state"])
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not runner(llama(1), **EVERYTHING).bare.terms  # equal widths: nothing to learn


def test_a_checkpoint_holds_the_terms_own_parameters_and_their_optimiser_state(tmp_path: Any) -> None:
    """Resumed, the run takes the same steps bit by bit."""

    def start() -> tuple[Runner, torch.optim.AdamW]:
        some = runner(llama(1, 48), **EVERYTHING)
        return some, torch.optim.AdamW(some.model.parameters(), lr=0.01)

    def take(some: Runner, optimizer: Any, steps: range, states: Any) -> Any:
        for number in steps:
            states = some.step([batch(seed=number)], number, states).states
            optimizer.step()
            optimizer.zero_grad()
        return states

    some, optimizer = start()
    states = take(some, optimizer, range(3), None)
    checkpoints = Checkpoints(tmp_path, lambda student, path: student.save_pretrained(path))
    path = checkpoints.save(3, some.bare.student, optimizer, {"terms": dict(states)}, terms=some.bare.terms)
    assert (path / "terms.safetensors").exists()
    take(some, optimizer, range(3, 6), states)

    again, optimizer = start()
    again.bare.student.load_state_dict(type(again.bare.student).from_pretrained(path).state_dict())
    saved = load_checkpoint(path, again.bare.student, optimizer, terms=again.bare.terms)
    take(again, optimizer, range(3, 6), again.objective.states(saved))
    for (name, one), other in zip(some.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_without_a_live_teacher_hidden_states_are_refused_by_their_key() -> None:
    with pytest.raises(ValueError, match=r"kd.hidden_state_weight: needs hidden states"):
        runner(**EVERYTHING).step([batch()], 0)


def test_only_the_head_quantised_every_term_sees_its_rounded_weight() -> None:
    """`linear_kd`, the latency losses' second product and the divergences of models beside the student."""
    reports = []
    for rounded in (False, True):
        some = runner(llama(1, 48), **EVERYTHING, prompt_kl_weight=0.2)
        student = some.bare.student
        config = QuantConfig(format="q4_0")
        if rounded:
            # the oracle: a head whose weights are q * s, and whose gradient is the float weight's
            table = rounded_weight(student.lm_head.weight.detach(), "q4_0")
            student.lm_head.weight.data.copy_(table)
        else:
            only = plan_model(student, QuantConfig(format="q4_0", embeddings="same")).only(["lm_head.weight"])
            apply_qat_to_model(student, config, plan=only)
        taught = replace(some, objective=some.objective.with_self_teaching(0.3, 1.0))
        some.bare.self_teacher = FrozenTeacher(llama(2))
        report = taught.step([batch()], 0, {"length": {"average": 0.5}})
        reports.append((report.values, {name: p.grad for name, p in some.model.named_parameters()}))
    (values, gradients), (wanted, others) = reports
    assert {"kl", "prompt_kl", "self_kl", "length", "early_tool_prior"} <= values.keys()
    assert values == pytest.approx(wanted, rel=1e-6)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, others[name], rtol=1e-6, atol=1e-9, msg=name)


def test_an_earlier_state_of_the_student_teaches_from_a_step_on() -> None:
    some = runner()
    plain = some.step([batch()], 0).values
    earlier = FrozenTeacher(llama(9))
    some.bare.self_teacher = earlier
    assert some.step([batch()], 0).values == plain  # there, but not asked
    taught = replace(some, objective=some.objective.with_self_teaching(0.5, 0.0))
    report = taught.step([batch()], 0, some.objective.states())
    others = {name: value for name, value in report.values.items() if name not in ("loss", "self_kl")}
    assert others == {name: value for name, value in plain.items() if name != "loss"}
    assert report.values["loss"] == pytest.approx(0.5 * report.values["self_kl"])
    assert report.values["self_kl"] > 0.1
    names = {name for name, _ in some.model.named_parameters()}
    assert names == {f"student.{name}" for name, _ in some.bare.student.named_parameters()}
    some.bare.self_teacher = FrozenTeacher(copy.deepcopy(some.bare.student))
    some.bare.student.eval()
    assert taught.step([batch()], 0).values["self_kl"] == pytest.approx(0.0, abs=1e-6)


def test_a_value_that_is_not_finite_ends_the_step_before_the_optimiser_s_update() -> None:
    some = runner()
    with torch.no_grad():
        some.bare.student.lm_head.weight[5] = math.inf
    with pytest.raises(
        DivergedError, match=r"training diverged: kl: logits are not finite in \d+ row\(s\): 10"
    ):
        some.step([batch()], 0)
