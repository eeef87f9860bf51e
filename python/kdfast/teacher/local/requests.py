"""What is asked of a teacher on this machine, and its replies, in the form of `completions`. No torch in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from kdfast import _rust
from kdfast.config import Config
from kdfast.errors import TeacherError
from kdfast.files import parse_json
from kdfast.model_files import check_model_directory
from kdfast.runs.student import weights_fingerprint
from kdfast.teacher.api.journal import Request, canonical_json
from kdfast.teacher.prompts import Prompt

ENDPOINT = "local"
"""The endpoint of requests that go to no server."""


@dataclass(frozen=True, kw_only=True)
class LocalSettings:
    """What decides an answer besides the prompt.

    Attributes:
        model: fingerprint of the teacher's model.
        dtype: its numbers, "fp32" or "bf16".
        tokenizer: fingerprint of the tokenizer, which makes a text of an answer.
        end_ids: the ids that end an answer, ascending.
        max_tokens: an answer is cut after so many.
        temperature: 0 = the likeliest token.
        seed: decides the draws of a temperature.
        answers_per_prompt: answers to each prompt.
        template: SHA-256 of the source of the chat template that prompts are rendered with, in hex; None = not said.
    """

    model: str
    dtype: str
    tokenizer: str
    end_ids: tuple[int, ...]
    max_tokens: int
    temperature: float
    seed: int
    answers_per_prompt: int
    template: str | None = None

    @classmethod
    def of(
        cls, config: Config, directory: Path, turn_end_ids: Sequence[int], *, template: str | None = None
    ) -> Self:
        """The settings of a config.

        An answer ends with an id that the model's own files name, or with the one that ends a turn of the template.

        Args:
            config: the config.
            directory: the model's Hugging Face directory.
            turn_end_ids: the ids with which the template ends an assistant's turn; the last one is special.
            template: as the attribute.

        Raises:
            TeacherError: the directory is no model's, or a file of it is damaged.
            DataError: the tokenizer cannot be used.
            OSError: a file cannot be read.
        """
        teacher = config.teacher
        ends = {*model_end_ids(directory), *turn_end_ids[-1:]}
        return cls(
            model=weights_fingerprint(directory),
            dtype=teacher.dtype,
            tokenizer=_rust.Tokenizer.from_file(config.data.tokenizer).fingerprint,
            end_ids=tuple(sorted(ends)),
            max_tokens=teacher.max_new_tokens,
            temperature=float(teacher.temperature),
            seed=teacher.seed,
            answers_per_prompt=teacher.answers_per_prompt,
            template=template,
        )


def local_request(prompt: Prompt, sample: int, ids: Sequence[int], settings: LocalSettings) -> Request:
    """The request for one answer to a prompt.

    Args:
        prompt: the prompt.
        sample: which of its answers, from 0.
        ids: its tokens.
        settings: what else decides the answer.

    Example:
        >>> settings = LocalSettings(
        ...     model="5eed", dtype="fp32", tokenizer="70c3", end_ids=(2,), max_tokens=64, temperature=0.0, seed=7,
        ...     answers_per_prompt=1)
        >>> request = local_request(Prompt(source=Path("p.jsonl"), line=4, index=3, prompt="Hi"), 0, [5, 9], settings)
        >>> request.order, request.body["prompt"], "seed" in request.body
        (3, [5, 9], False)
    """
    body: dict[str, Any] = {
        "model": settings.model,
        "dtype": settings.dtype,
        "prompt": [int(token) for token in ids],
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
        "stop": list(settings.end_ids),
    }
    if settings.temperature > 0:
        body["seed"] = settings.seed
    return Request(
        ENDPOINT,
        body,
        sample,
        prompt.index * settings.answers_per_prompt + sample,
        {"tokenizer": settings.tokenizer}
        | ({} if settings.template is None else {"template": settings.template}),
    )


def local_reply(model: str, text: str, ids: Sequence[int], *, cut: bool, prompt_tokens: int) -> bytes:
    """The reply that the journal keeps, as a server's `completions` would give it; the same answer, the same bytes.

    Args:
        model: fingerprint of the model.
        text: the answer.
        ids: its tokens, without the one that ended it.
        cut: whether it reached the limit of tokens.
        prompt_tokens: tokens of the prompt.

    Example:
        >>> local_reply("5eed", "Hi", [7], cut=False, prompt_tokens=3).decode()
        '{"choices":[{"finish_reason":"stop","index":0,"text":"Hi","token_ids":[7]}],"model":"5eed",...
    """
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": len(ids),
        "total_tokens": prompt_tokens + len(ids),
    }
    choice = {
        "index": 0,
        "text": text,
        "token_ids": [int(token) for token in ids],
        "finish_reason": "length" if cut else "stop",
    }
    return canonical_json({"object": "text_completion", "model": model, "choices": [choice], "usage": usage})


def model_end_ids(directory: Path) -> tuple[int, ...]:
    """The ids that end an answer, as the model's own files say; () = they name none.

    As in transformers, generation_config.json comes before config.json.

    Raises:
        TeacherError: the directory is no model's, or a file of it is damaged.
        OSError: a file cannot be read.
    """
    check_model_directory(directory, error=TeacherError, name="teacher.model")
    for name in ("generation_config.json", "config.json"):
        file = directory / name
        ids = _json_object(file).get("eos_token_id") if file.exists() else None
        if ids is not None:
            listed = ids if isinstance(ids, list) else [ids]
            if not all(type(one) is int and one >= 0 for one in listed):
                raise TeacherError(
                    "teacher.model: eos_token_id must be a token's id or a list of such; mend it, or fetch the model "
                    f"again: {ids!r:.80} in {file}"
                )
            return tuple(listed)
    return ()


def _json_object(file: Path) -> dict[str, Any]:
    try:
        document = parse_json(file.read_bytes())
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise TeacherError(f"teacher.model: this is no JSON object; fetch the model again: {file}")
    return document
