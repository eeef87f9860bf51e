"""Loads a Hugging Face causal language model: no messages, no network, an error if any weight is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from kdfast.config import choices
from kdfast.errors import ConfigError, DataError, KdfastError
from kdfast.model_files import check_model_directory

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
"""Model types whose logits are the output layer applied to the last hidden states, nothing in between."""

OWN_CODE_NEVER: dict[str, Any] = {"trust_remote_code": False}
"""Without it transformers asks on the terminal whether to run the code that lies beside a model, and runs it on `y`."""

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, full) for name, full in choices.DTYPES.items()}
"""torch's dtypes by the names that configs and options use."""

_BROKEN = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
)
"""What transformers raises on a directory that is missing, incomplete or damaged."""


def resolve_device(name: str = "auto", *, key: str = "device") -> torch.device:
    """The device of a name; "auto" is cuda, else mps, else cpu.

    Args:
        name: "auto", "cuda", "mps" or "cpu".
        key: what the user chose it by, for messages, such as "train.device" or "--device".

    Raises:
        ConfigError: this machine lacks the device.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in present.items() if there)
    if not present.get(name, False):
        there = ", ".join(device for device, found in present.items() if found)
        raise ConfigError(f"{key}: this machine has {there}; choose one of these or 'auto': {name}")
    return torch.device(name)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps transformers' progress bars and warnings off the terminal; errors still come as exceptions."""
    logging: Any = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load_model_config(
    path: Path, *, error: type[KdfastError], name: str, families: Sequence[str] | None = FAMILIES
) -> PretrainedConfig:
    """The model's config.

    Args:
        path: a model directory, or a .gguf file.
        error: the class of the error to raise.
        name: how the message calls the path, such as "teacher.model".
        families: the model types to accept; None = any.

    Raises:
        KdfastError: of the class `error`: the model is missing, not readable, or of a family not in `families`.
    """
    if not path.is_file():
        check_model_directory(path, error=error, name=name)
    try:
        with quiet_transformers():
            config: PretrainedConfig = (
                AutoConfig.from_pretrained(path.parent, gguf_file=path.name, **OWN_CODE_NEVER)
                if path.is_file()
                else AutoConfig.from_pretrained(path, local_files_only=True, **OWN_CODE_NEVER)
            )
    except _BROKEN as cause:
        raise error(
            f"{name}: no readable config.json, give a Hugging Face model directory: {path}"
        ) from cause
    if families is not None and config.model_type not in families:
        raise error(f"{name}: model type must be one of {', '.join(families)}: {config.model_type}")
    return config


def load_causal_lm(
    directory: Path,
    *,
    dtype: torch.dtype,
    error: type[KdfastError],
    name: str,
    families: Sequence[str] | None = FAMILIES,
) -> PreTrainedModel:
    """The model of a directory, on the CPU, in evaluation mode.

    Args:
        directory: as `save_pretrained` writes it (safetensors only: no pickle is ever loaded).
        dtype: the number format of the weights.
        error: the class of the error to raise.
        name: how the message calls the directory, such as "teacher.model".
        families: the model types to accept; None = any (for callers that only generate).

    Raises:
        KdfastError: of the class `error`: the model is missing, damaged, incomplete, or of a family not in `families`.
    """
    config = load_model_config(directory, error=error, name=name, families=families)
    try:
        with quiet_transformers():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                directory,
                config=config,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **OWN_CODE_NEVER,
            )
    except _BROKEN as cause:
        reason = " ".join(str(cause).split())[:200]
        raise error(
            f"{name}: cannot load the model, fetch or save it again ({reason}): {directory}"
        ) from cause
    model: PreTrainedModel = loaded[0]
    info: dict[str, Any] = loaded[1]
    # transformers fills missing weights with random numbers and only warns
    for problem in ("missing_keys", "mismatched_keys", "error_msgs"):
        if info.get(problem):
            first = json.dumps(sorted(map(str, info[problem]))[:3])
            raise error(
                f"{name}: the model has {problem.replace('_', ' ')} {first}, save it again: {directory}"
            )
    model.train(False)
    return model


def make_savable(model: PreTrainedModel) -> str:
    """Drops what `save_pretrained` would refuse at the end of a run: contradictory settings for generation.

    Args:
        model: the model; its generation config may be replaced.

    Returns:
        what was dropped and why; "" = nothing.
    """
    generation: Any = model.generation_config
    if generation is None:
        return ""
    try:
        with quiet_transformers():
            generation.validate(strict=True)
    except ValueError as cause:
        ids = {name: value for name, value in generation.to_dict().items() if name.endswith("_token_id")}
        make: Any = GenerationConfig
        model.generation_config = make(**ids)
        reason = " ".join(str(cause).split())
        return f"the model's generation_config.json cannot be saved again; all but its token ids is left out ({reason})"
    return ""


def check_readable(directory: Path, *, error: type[KdfastError], name: str) -> None:
    """Lets transformers read a saved model's config, settings for generation, tokenizer and template; no weights.

    Raises:
        KdfastError: of the class `error`: transformers refuses one of them.
    """
    try:
        with quiet_transformers():
            AutoConfig.from_pretrained(directory, local_files_only=True, **OWN_CODE_NEVER)
            GenerationConfig.from_pretrained(directory, local_files_only=True)
            AutoTokenizer.from_pretrained(directory, local_files_only=True, **OWN_CODE_NEVER)
    except _BROKEN as cause:
        reason = " ".join(str(cause).split())[:200]
        raise error(
            f"{name}: the student could be written, but transformers would not read it again ({reason}); mend the "
            "config.json, generation_config.json or tokenizer files that it starts from"
        ) from cause


def check_sizes(
    config: PretrainedConfig, *, ids: int, longest: int, error: type[KdfastError], name: str
) -> None:
    """Checks that a model can read what a tokenizer and records give it.

    Args:
        config: the model's.
        ids: how many ids the tokenizer has.
        longest: tokens of the longest row that the model will read; 0 = not known yet.
        error: the class of the error to raise.
        name: how the message calls the model.

    Raises:
        KdfastError: of the class `error`: an id has no row in the model, or a row is longer than the model reads.
    """
    text = config.get_text_config()
    if ids > text.vocab_size:
        raise error(
            f"{name}: the tokenizer has {ids} ids and the model has rows for {text.vocab_size}; use the tokenizer that "
            "belongs to the model, or a model with more rows"
        )
    limit = getattr(text, "max_position_embeddings", None)
    if limit is not None and longest > limit:
        raise error(
            f"{name}: the longest row has {longest} tokens and the model reads {limit} (max_position_embeddings); "
            "lower the largest of data.shapes, shorten the records, or use a model that reads more"
        )


class PromptMaker:
    """Makes prompts as transformers, and the servers built on it, make them of messages and tools.

    Args:
        directory: a model's, with its tokenizer and chat template.

    Raises:
        DataError: transformers does not read the tokenizer.
    """

    def __init__(self, directory: Path) -> None:
        try:
            with quiet_transformers():
                self._tokenizer: Any = AutoTokenizer.from_pretrained(
                    directory, local_files_only=True, **OWN_CODE_NEVER
                )
        except _BROKEN as cause:
            reason = " ".join(str(cause).split())[:200]
            raise DataError(f"transformers does not read the tokenizer ({reason})", str(directory)) from cause

    def apply_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt of a conversation, generation prompt included.

        Args:
            messages: in the form of the chat API; as servers do, arguments that are JSON text are parsed first.
            tools: in the form of the chat API.
            template_kwargs: variables that the template reads.

        Raises:
            DataError: the template refuses them.
        """
        try:
            text: str = self._tokenizer.apply_chat_template(
                [_with_objects(message) for message in messages],
                tools=None if tools is None else list(tools),
                tokenize=False,
                add_generation_prompt=True,
                **(template_kwargs or {}),
            )
        except (*_BROKEN, TemplateError) as cause:
            raise DataError(f"the template refuses: {' '.join(str(cause).split())[:200]}") from cause
        return text

    def tokenize(self, text: str) -> list[int]:
        """The ids of a text; special tokens in it become their ids, nothing is added."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def _with_objects(message: Mapping[str, Any]) -> dict[str, Any]:
    calls = message.get("tool_calls")
    if not calls:
        return dict(message)
    return {
        **message,
        "tool_calls": [
            {**call, "function": {**call["function"], "arguments": _object(call["function"]["arguments"])}}
            for call in calls
        ],
    }


def _object(arguments: Any) -> Any:
    return json.loads(arguments) if isinstance(arguments, str) else arguments
