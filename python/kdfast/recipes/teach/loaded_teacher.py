"""The teacher that answers on this machine: what it can read is checked before it is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from kdfast._rust import Tokenizer
from kdfast.config import Config
from kdfast.errors import ConfigError, DataError, TeacherError
from kdfast.evaluate.generate import Decoding
from kdfast.pretrained import load_model_config
from kdfast.student import check_vocabulary, read_pieces
from kdfast.teacher import LocalTeacher, model_directory, model_vocab_size
from kdfast.teacher.asked import Asked

_NO_LIMIT = 2**62
"""Tokens of a batch: `teacher.batch_size` alone says how large a batch is."""

_NO_MEMORY = ("out of memory", "can't allocate memory")
"""Words in torch's errors; only those of CUDA have a class of their own."""


@dataclass(frozen=True, kw_only=True)
class LoadedTeacher:
    """The teacher, loaded, and how it answers.

    Attributes:
        directory: its Hugging Face directory.
        model: the model, on its device.
        decoding: when an answer ends.
        temperature: 0 = the likeliest token.
        usable: ids that teacher and student share; no other one is drawn.
        tokenizer: makes a text of an answer.
    """

    directory: Path
    model: torch.nn.Module
    decoding: Decoding
    temperature: float
    usable: int
    tokenizer: Tokenizer

    @classmethod
    def of(cls, config: Config, asked: Sequence[Asked]) -> LoadedTeacher:
        """Checks that the teacher can read all prompts, then loads it.

        Args:
            config: names the teacher and the tokenizer.
            asked: the requests; they say when an answer ends.

        Raises:
            ConfigError: no teacher is named, or this machine lacks the device.
            DataError: a prompt that the teacher cannot read, or a vocabulary that does not fit.
            TeacherError: the teacher cannot be loaded.
            ValueError: the requests are not of one set of settings.
        """
        settings = config.teacher
        if settings.model is None:
            raise ConfigError(
                "teacher.model: needed by teacher.kind 'local'; set it to a Hugging Face directory or a .gguf file"
            )
        bodies = [one.request.body for one in asked]
        kinds = {(tuple(body["stop"]), body["max_tokens"], body["temperature"]) for body in bodies}
        if len(kinds) != 1:
            raise ValueError(f"the requests of a job must have one set of settings: {len(kinds)}")
        ends, most, temperature = kinds.pop()
        directory = model_directory(settings.model)
        usable = check_vocabulary(
            config.data.tokenizer,
            directory,
            student_size=len(read_pieces(config.data.tokenizer)),
            teacher_size=model_vocab_size(directory),
        )
        _check_prompts(asked, usable, most, directory)
        teacher = LocalTeacher(directory, device=settings.device, dtype=settings.dtype)
        return cls(
            directory=directory,
            model=teacher.model,
            decoding=Decoding(
                eos_ids=ends,
                pad_id=ends[0] if ends else 0,
                max_new_tokens=most,
                batch_size=settings.batch_size,
                batch_tokens=_NO_LIMIT,
            ),
            temperature=temperature,
            usable=usable,
            tokenizer=Tokenizer.from_file(config.data.tokenizer),
        )


def _check_prompts(asked: Sequence[Asked], usable: int, max_new_tokens: int, directory: Path) -> None:
    model = load_model_config(directory, error=TeacherError, name="teacher.model").get_text_config()
    limit = getattr(model, "max_position_embeddings", None)
    for one in asked:
        ids, place = one.request.body["prompt"], (str(one.prompt.source), one.prompt.line)
        if not ids:
            raise DataError("the prompt has no tokens; remove the record", *place)
        if max(ids) >= usable:
            raise DataError(
                f"the prompt has a token that the teacher does not know; it knows ids below {usable}: {max(ids)}",
                *place,
            )
        if limit is not None and len(ids) + max_new_tokens > limit:
            raise DataError(
                f"the prompt has {len(ids)} tokens, with teacher.max_new_tokens {max_new_tokens} more than the teacher "
                f"reads (max_position_embeddings); shorten it, or lower teacher.max_new_tokens: {limit}",
                *place,
            )


@contextmanager
def named_failures(directory: Path, batch_size: int) -> Iterator[None]:
    """A block in which a model's NaN and lack of memory become errors that name the remedy.

    Args:
        directory: the model.
        batch_size: prompts in the batch.

    Raises:
        TeacherError: the model gave NaN, or the memory was too small.
    """
    try:
        yield
    except FloatingPointError as error:
        raise TeacherError(
            "teacher.model: gives NaN on these prompts; try teacher.dtype fp32, or fetch the model again: "
            f"{directory}"
        ) from error
    except RuntimeError as error:
        if not any(words in str(error) for words in _NO_MEMORY):
            raise
        raise TeacherError(
            "teacher.batch_size: the memory is too small for the batch; lower it, or lower teacher.max_new_tokens: "
            f"{batch_size}"
        ) from error
