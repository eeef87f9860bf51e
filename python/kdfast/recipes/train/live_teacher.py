"""A frozen model beside the student in each training step: a live teacher, or the student's own earlier state."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdfast.config import Config
from kdfast.config.arch import ArchConfig
from kdfast.config.kd import KDConfig
from kdfast.config.section import invalid
from kdfast.errors import TeacherError
from kdfast.losses import TeacherOutput
from kdfast.pretrained import DTYPES, FAMILIES, load_causal_lm
from kdfast.quantized import effective_weight
from kdfast.student import check_vocabulary, hidden_states, read_pieces
from kdfast.student.build import chosen_layers
from kdfast.teacher import model_directory, model_vocab_size


class FrozenTeacher:
    """A model that is only read. It is no `nn.Module`, so no optimiser, checkpoint or DDP sees its parameters.

    Args:
        model: a causal language model of a family in `kdfast.pretrained.FAMILIES`, on its device. It is put into
            evaluation mode, and its parameters no longer ask for gradients.
        usable: ids that it shares with the student; ids from there on are cut off its output layer. None = all.

    Raises:
        TeacherError: its logits are not those of its output layer's weight on its last hidden states.
    """

    def __init__(self, model: nn.Module, usable: int | None = None) -> None:
        self.model: Any = model
        config = getattr(model, "config", None)
        family = getattr(config, "model_type", type(model).__name__)
        head = getattr(model, "lm_head", None)
        # another family may scale or cap its logits, and a bias is not in the weight that losses take
        if family not in FAMILIES or head is None or getattr(head, "bias", None) is not None:
            raise TeacherError(
                "a model beside the student must be a causal language model without a bias in its output layer, of the "
                f"type {', '.join(FAMILIES)}: {family}"
            )
        self.usable = usable
        self.model.train(False)
        self.model.requires_grad_(False)

    @property
    def width(self) -> int:
        """Dt, the width of its hidden states."""
        return int(self.model.config.hidden_size)

    @property
    def depth(self) -> int:
        """The number of its layers."""
        return int(self.model.config.num_hidden_layers)

    def output(self, ids: Tensor, layers: Collection[int] = ()) -> TeacherOutput:
        """Its forward pass, under the autocast of the caller.

        Args:
            ids: [B,T'] int64, padded on the right.
            layers: layers whose hidden states are wanted, see `hidden_states`.

        Raises:
            ValueError: the model has no such layer.
        """
        with torch.no_grad():
            hidden, chosen = hidden_states(self.model, ids, layers)
            head = effective_weight(self.model.lm_head)[: self.usable]
            return TeacherOutput(hidden.to(head.dtype), head, chosen)


def shared_ids(config: Config, directory: Path) -> int:
    """The number of ids that the run's tokenizer and a model share.

    Args:
        config: the run's config.
        directory: the teacher's Hugging Face directory.

    Raises:
        DataError: an id means different tokens to them.
        TeacherError: there is no model.
    """
    return check_vocabulary(
        config.data.tokenizer,
        directory,
        student_size=len(read_pieces(config.data.tokenizer)),
        teacher_size=model_vocab_size(directory),
    )


def load_live_teacher(config: Config, device: torch.device) -> FrozenTeacher | None:
    """The teacher that a run's config puts beside the student.

    Args:
        config: the run's config.
        device: the student's device.

    Returns:
        the teacher; None without `teacher.live`.

    Raises:
        ConfigError: it may not run on the student's device.
        DataError: its vocabulary is another one than the student's.
        TeacherError: it is missing, damaged, of a family that is not supported, or too large for the memory.
    """
    settings = config.teacher
    if not settings.live or settings.model is None:
        return None
    if settings.device not in ("auto", device.type):
        raise invalid(
            "teacher.device",
            f"'auto' or the student's device ({device.type}) with teacher.live",
            settings.device,
        )
    directory = model_directory(settings.model)
    usable = shared_ids(config, directory)
    try:
        model: Any = load_causal_lm(
            directory, dtype=DTYPES[settings.dtype], error=TeacherError, name="teacher.model"
        )
        model = model.to(device)
    except (TeacherError, RuntimeError, MemoryError) as cause:
        if not out_of_memory(cause):
            raise
        raise TeacherError(
            f"teacher.live: no memory for the teacher beside the student on {device}; set teacher.dtype to bf16, take "
            "a smaller teacher, or write a teacher store (`kdfast teach`) and set teacher.live to false: "
            f"{settings.model}"
        ) from cause
    return FrozenTeacher(model, usable)


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that memory ran out."""
    while error is not None:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
            return True
        error = error.__cause__
    return False


def with_layers(kd: KDConfig, arch: ArchConfig, *, student: int, teacher: int) -> KDConfig:
    """A section `kd` that says which hidden states are compared, where it leaves that open.

    A student made of the teacher's layers (`arch.init: teacher`) compares each of its layers: the student's layer i
    stands for the teacher's layers up to the next one that was kept, so its output is compared with what that next
    layer reads, last to last. Any other student compares the last hidden states only.

    Args:
        kd: the section.
        arch: the section that made the student.
        student: number of the student's layers.
        teacher: number of the teacher's layers.

    Raises:
        ConfigError: it names a layer that there is not.

    Example:
        >>> found = with_layers(
        ...     KDConfig(hidden_state_weight=1), ArchConfig(init="teacher", layers=4), student=4, teacher=30
        ... )
        >>> found.hidden_state_student_layers, found.hidden_state_teacher_layers
        ((1, 2, 3, -1), (10, 19, 29, -1))
    """
    ours, theirs = kd.hidden_state_student_layers, kd.hidden_state_teacher_layers
    if ours is not None and theirs is not None:
        for who, layers, depth in (("student", ours, student), ("teacher", theirs, teacher)):
            if max(layers) > depth:
                allowed = f"at most {depth}, the number of the {who}'s layers (-1 = after the last norm)"
                raise invalid(f"kd.hidden_state_{who}_layers", allowed, list(layers))
        return kd
    kept = chosen_layers(arch.layers, teacher) if arch.init == "teacher" else []
    return replace(
        kd,
        hidden_state_student_layers=(*range(1, len(kept)), -1),
        hidden_state_teacher_layers=(*kept[1:], -1),
    )
