"""Checks of the student: it is built as the config says, sees only earlier tokens, and fits the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kdfast.config import Config
from kdfast.recipes.preflight.check import Check, Finding, failed, passed, skipped, warned
from kdfast.recipes.preflight.facts import PreflightRequest
from kdfast.recipes.preflight.made.machine import Machine
from kdfast.student import hidden_and_head

_NOISE = 1e-4  # by how much of the largest logit two fp32 passes of one model may differ
_MOST_TOKENS = 24  # of a row, in probes: they must take a moment with 135 M parameters on two cores
_ALMOST_FULL = 0.8  # above this share of the memory, what is not estimated may be too much
_REPORT = "report it with the config: kdfast builds such a student with other properties"


def is_built(
    student: nn.Module,
    student_note: str,
    learner: Callable[[], nn.Module],  # noqa: ARG001 - this check answers for it: that it can be made
    figures: dict[str, int],
) -> Finding:
    """The student can be built, and how large it is."""
    parameters, trained = (_count(student, trained=only) for only in (False, True))
    if not parameters:
        return failed("the student has no parameters", "see the section arch")
    said = f"{_millions(parameters)} parameters, {_millions(trained)} of them trained"
    if student_note:
        whole, whole_trained = (_millions(figures[name]) for name in ("parameters", "trainable_parameters"))
        return passed(
            f"a stand-in of the same family, {student_note}; the student has {whole}, {whole_trained} trained"
        )
    return passed(said)


def is_causal(student: nn.Module, sampled: Sequence[dict[str, Any]]) -> Finding:
    """A later token does not change the logits before it."""
    ids = _some_tokens(sampled)
    reason = _no_probe(student, ids)
    if reason:
        return skipped(reason)
    length = ids.shape[1]
    places = [length // 2, length - 1]
    probes = ids.repeat(1 + len(places), 1)  # [3,T]
    for row, place in enumerate(places, 1):
        probes[row, place] = _other(student, int(ids[0, place]))
    with _evaluating(student), torch.no_grad():
        logits = _training_logits(student, probes)  # [3,T,V]
    if not bool(logits.isfinite().all()):
        return skipped(
            "its logits are not finite, so that nothing can be compared; see model.weights_are_finite"
        )
    largest = 0.0
    for row, place in enumerate(places, 1):
        apart = (logits[row] - logits[0]).abs().amax(dim=1)  # [T]
        if not bool(apart[place] > 0):
            return failed(
                f"another token at position {place} changes no logits there: its input is not read", _REPORT
            )
        leaked = float(apart[:place].max())
        if leaked > _NOISE * float(logits.abs().max()):
            return failed(
                f"another token at position {place} changes logits before it by {leaked:.2g}: the student sees what it "
                "is to predict",
                "use a causal language model (is_causal true in its config.json) as arch.init",
            )
        largest = max(largest, leaked)
    return passed(
        f"{length} tokens of the sample: another token at {places[0]} or {places[1]} changes earlier logits by "
        f"{largest:.0e} at most"
    )


def padding_changes_nothing(student: nn.Module, sampled: Sequence[dict[str, Any]]) -> Finding:
    """Padding on the right (training) and on the left (generation) leaves the logits of the tokens as they are."""
    ids = _some_tokens(sampled)
    reason = _no_probe(student, ids)
    if reason:
        return skipped(reason)
    short = ids.shape[1] // 2
    alone, pads = ids[:, :short], torch.zeros_like(ids[:, short:])
    mask = torch.ones_like(ids)
    mask[:, short:] = 0
    model: Any = student
    with _evaluating(student), torch.no_grad():
        wanted = _training_logits(student, alone)[0]  # [S,V]
        both = torch.cat([torch.cat([alone, pads], dim=1), ids])  # [2,T]
        padded, longer = _training_logits(student, both, torch.cat([mask, torch.ones_like(ids)]))[:, :short]
        left = model(
            input_ids=torch.cat([pads, alone], dim=1),
            attention_mask=mask.flip(1),
            position_ids=(torch.arange(ids.shape[1]) - pads.shape[1]).clamp(min=0)[None],
            use_cache=False,
        ).logits[0, pads.shape[1] :]  # [S,V]
    limit = 10 * _NOISE * float(wanted.abs().max())  # other lengths take other ways through the kernels
    if not bool(torch.stack([wanted, padded, longer, left]).isfinite().all()):
        return skipped(
            "its logits are not finite, so that nothing can be compared; see model.weights_are_finite"
        )
    if float((padded - longer).abs().max()) > limit:
        return skipped("tokens after a position change its logits, and so does padding; see model.is_causal")
    for side, seen in (("right, as in training", padded), ("left, as in generation", left)):
        apart = float((seen - wanted).abs().max())
        if apart > limit:
            return failed(
                f"{pads.shape[1]} tokens of padding on the {side}, change the logits of {short} tokens by {apart:.2g}",
                "use a model that reads attention_mask and position_ids as arch.init",
            )
    return passed(
        f"{pads.shape[1]} tokens of padding on the right or left change no logits of {short} tokens"
    )


def embeddings_are_tied(student: nn.Module, config: Config) -> Finding:
    """Embeddings and output layer share their weights exactly where the model and the config say so."""
    model: Any = student
    inputs, outputs = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    shared = inputs.data_ptr() == outputs.data_ptr() and inputs.shape == outputs.shape
    said, asked = bool(model.config.tie_word_embeddings), config.arch.tie_word_embeddings
    words = {True: "share their weights", False: "have weights of their own"}
    if shared != said:
        return failed(
            f"embeddings and output layer {words[shared]}, and the model's config says tie_word_embeddings "
            f"{str(said).lower()}",
            "mend tie_word_embeddings in its config.json: what is saved would not be what was trained",
        )
    if asked not in (None, shared):
        return failed(
            f"embeddings and output layer {words[shared]}, and arch.tie_word_embeddings is {str(asked).lower()}",
            "set arch.tie_word_embeddings to null",
        )
    return passed(f"embeddings and output layer {words[shared]}, as its config says")


def weights_are_fp32(student: nn.Module) -> Finding:
    """All weights are fp32: in bf16 an optimiser's small updates are lost."""
    others = {
        name: weight.dtype for name, weight in student.named_parameters() if weight.dtype != torch.float32
    }
    if others:
        name = next(iter(others))
        return failed(
            f"{len(others)} weights are not fp32, the first is {name}: {others[name]}",
            "train fp32 weights; train.dtype bf16 makes the forward pass bf16",
        )
    return passed(f"{sum(1 for _ in student.parameters())} weights, all fp32")


def weights_are_finite(student: nn.Module) -> Finding:
    """No weight is NaN or infinite."""
    # a sum over NaN or infinity is not finite, and takes a fraction of the time of a look at each number
    suspects = [(name, weight) for name, weight in student.named_parameters() if not _is_finite(weight.sum())]
    broken = [name for name, weight in suspects if not _is_finite(weight)]
    if broken:
        return failed(
            f"{len(broken)} weights hold NaN or infinity, the first is {broken[0]}",
            "take another arch.init: this one is damaged",
        )
    return passed(f"{_millions(_count(student, trained=False))} numbers, all finite")


def positions_suffice(student: nn.Module, sampled: Sequence[dict[str, Any]], config: Config) -> Finding:
    """The student knows as many positions as the longest row has tokens."""
    model: Any = student
    most, shape = getattr(model.config, "max_position_embeddings", None), config.data.shapes[-1]
    if most is None:
        return skipped("the model's config has no max_position_embeddings")
    longest = min(max((len(row["ids"]) for row in sampled), default=0), shape)
    seen = f"the student knows {most} positions, the longest of data.shapes is {shape}, and of the sample {longest}"
    if longest > most:
        return failed(seen, f"remove the data.shapes above {most}, or raise arch.max_position_embeddings")
    if shape > most:
        return warned(seen, f"remove the data.shapes above {most}: it has not learned such positions")
    return passed(seen)


def vocabulary_covers_ids(student: nn.Module, batches: Sequence[dict[str, Tensor]]) -> Finding:
    """Each id of the batches has a row in the embeddings and in the output layer."""
    model: Any = student
    sizes = [len(model.get_input_embeddings().weight), len(model.get_output_embeddings().weight)]
    highest = max((int(batch["input_ids"].max()) for batch in batches), default=-1)
    highest = max([highest, *(int(batch["labels"].max()) for batch in batches)])
    for batch in batches:
        if "teacher_topk_mask" in batch and bool(batch["teacher_topk_mask"].any()):
            highest = max(highest, int(batch["teacher_topk_ids"][batch["teacher_topk_mask"]].max()))
    seen = f"the highest id of the sample is {highest}; embeddings have {sizes[0]} rows, the output layer {sizes[1]}"
    if highest >= min(sizes):
        return failed(
            seen, "data.tokenizer must be the one of arch.init; from scratch, set arch.vocab_size to null"
        )
    return passed(seen)


def is_trained(student: nn.Module, config: Config) -> Finding:
    """Every weight is trained; under `arch.freeze_embeddings` all but the embeddings."""
    model: Any = student
    embeddings = model.get_input_embeddings().weight
    frozen = [name for name, weight in student.named_parameters() if not weight.requires_grad]
    meant = config.arch.freeze_embeddings
    wrong = [
        name
        for name, weight in student.named_parameters()
        if weight.requires_grad == (meant and weight.data_ptr() == embeddings.data_ptr())
    ]
    parameters, trained = (_count(student, trained=only) for only in (False, True))
    if not trained:
        return failed(f"all {_millions(parameters)} parameters are frozen: nothing would be learned", _REPORT)
    if wrong:
        return failed(
            f"arch.freeze_embeddings is {str(meant).lower()}, and {len(frozen)} weights are frozen; the first that "
            f"should not be as it is: {wrong[0]}",
            _REPORT,
        )
    which = "all but the embeddings" if meant else "all"
    return passed(f"{_millions(trained)} of {_millions(parameters)} parameters are trained: {which}")


_SHARES = {
    "weights": "weights_bytes",
    "gradients": "gradients_bytes",
    "optimizer": "optimizer_bytes",
    "activations": "activations_bytes",
    "live teacher": "live_teacher_bytes",
    "float copy for QAT": "self_teacher_bytes",
}


def memory_suffices(
    figures: dict[str, int], student_note: str, config: Config, machine: Machine, request: PreflightRequest
) -> Finding:
    """Weights, gradients, averages, activations and copies fit the memory of the device that trains.

    With `--full` the student itself is trained on the CPU now, so that it must fit what is free there.
    """
    kept = sum(figures.get(name, 0) for name in ("weights_bytes", "gradients_bytes", "optimizer_bytes"))
    if request.full and 0 < machine.memory_available < kept:
        return failed(
            f"--full trains the student itself on this machine: its weights, gradients and averages need {_gb(kept)},"
            f" and {_gb(machine.memory_available)} of memory are free",
            "leave out --full, so that a stand-in is trained, or run it on a machine with more memory",
        )
    return _of_training(figures, student_note, config, machine, request)


def _of_training(
    figures: dict[str, int], student_note: str, config: Config, machine: Machine, request: PreflightRequest
) -> Finding:
    """What training as the config says needs, against the memory of its device."""
    shares = {name: figures[key] for name, key in _SHARES.items() if figures.get(key)}
    if config.train.dtype == "bf16":
        shares["bf16 weights of the forward pass"] = figures["weights_bytes"] // 2
    need, size, place = sum(shares.values()), *_memory(config, machine)
    if not size:
        return skipped(f"training needs {_gb(need)}, and the {place} is not known")
    listed = ", ".join(f"{name} {_gb(share)}" for name, share in shares.items())
    seen = f"training needs about {_gb(need)} ({listed}); the {place} is {_gb(size)}"
    if need > size and student_note and not request.trains_next:
        return warned(
            f"{seen}: it cannot be trained here",
            "train it on another machine; or take a smaller arch, train.micro_batch_size or data.shapes",
        )
    if need > size:
        return failed(
            seen, "lower train.micro_batch_size or data.shapes, take a smaller arch, or another machine"
        )
    if need > _ALMOST_FULL * size:
        return warned(
            seen, "little is left for what is not estimated: lower train.micro_batch_size or data.shapes"
        )
    if place == "memory" and need > machine.memory_available:
        return warned(
            f"{seen}, and {_gb(machine.memory_available)} of it are free now",
            "end other programs before training",
        )
    return passed(seen)


def _memory(config: Config, machine: Machine) -> tuple[int, str]:
    """The bytes of the device that trains, 0 = unknown, and which memory that is."""
    device = config.train.device
    if device == "cuda" or (device == "auto" and machine.gpu_memory):
        return min(machine.gpu_memory, default=0), "memory of the GPU"
    return machine.memory_total, "memory"


def _some_tokens(sampled: Sequence[dict[str, Any]]) -> Tensor:
    """[1,T] the first tokens of the longest row of the sample."""
    longest: Sequence[int] = max((row["ids"] for row in sampled), key=len, default=())
    return torch.tensor([[int(token) for token in longest[:_MOST_TOKENS]]], dtype=torch.long)


def _no_probe(student: nn.Module, ids: Tensor) -> str:
    """Why a forward pass would show nothing; "" = it shows something."""
    model: Any = student
    if ids.shape[1] < 4:
        return "no row of the sample has four tokens"
    sizes = [len(layer.weight) for layer in (model.get_input_embeddings(), model.get_output_embeddings())]
    if int(ids.max()) >= min(sizes):
        return "the vocabulary is too small for the sample; see model.vocabulary_covers_ids"
    if any(weight.dtype != torch.float32 for weight in student.parameters()):
        return "its weights are not fp32; see model.weights_are_fp32"
    return ""


def _training_logits(student: nn.Module, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """[B,T,V] the logits of ids [B,T] as training computes them."""
    model: Any = student
    hidden, head = hidden_and_head(model, ids, torch.ones_like(ids) if mask is None else mask)
    return hidden @ head.T


def _other(student: nn.Module, token: int) -> int:
    """Another id."""
    model: Any = student
    return (token + 1) % len(model.get_input_embeddings().weight)


@contextmanager
def _evaluating(student: nn.Module) -> Iterator[None]:
    """Without dropout, for a while."""
    was_training = student.training
    student.train(False)
    try:
        yield
    finally:
        student.train(was_training)


def _is_finite(numbers: Tensor) -> bool:
    return bool(torch.isfinite(numbers.detach()).all())


def _count(student: nn.Module, *, trained: bool) -> int:
    return sum(weight.numel() for weight in student.parameters() if weight.requires_grad or not trained)


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 1e5 else f"{count:,}"


def _gb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"


CHECKS = (
    Check(
        name="model.is_built",
        proves="The student can be built, and this is its size.",
        look=is_built,
        owns=("student", "student_note", "learner", "figures"),
    ),
    Check(
        name="model.is_causal",
        proves="No token changes the logits before it: the student cannot see what it is to predict.",
        look=is_causal,
    ),
    Check(
        name="model.padding_changes_nothing",
        proves="Padding on either side leaves the logits of the tokens as they are.",
        look=padding_changes_nothing,
    ),
    Check(
        name="model.embeddings_are_tied",
        proves="Embeddings and output layer share their weights exactly where model and config say so.",
        look=embeddings_are_tied,
    ),
    Check(
        name="model.weights_are_fp32",
        proves="All weights are fp32, as training expects.",
        look=weights_are_fp32,
    ),
    Check(name="model.weights_are_finite", proves="No weight is NaN or infinite.", look=weights_are_finite),
    Check(
        name="model.positions_suffice",
        proves="The student knows as many positions as the longest row has tokens.",
        look=positions_suffice,
    ),
    Check(
        name="model.vocabulary_covers_ids",
        proves="Embeddings and output layer have a row for each id of the batches.",
        look=vocabulary_covers_ids,
    ),
    Check(
        name="model.is_trained",
        proves="The weights that the config means to train are trained, and no others are frozen.",
        look=is_trained,
    ),
    Check(
        name="model.memory_suffices",
        proves="Training fits the memory of the device it runs on, by the estimate.",
        look=memory_suffices,
    ),
)
