"""The tokens that end an answer, as a GGUF file can say them: at most three, and those that llama.cpp knows by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdfast.errors import ConfigError
from kdfast.export.gguf.families import read_config
from kdfast.export.gguf.vocabulary import Vocabulary
from kdfast.files import read_document

END_OF_MESSAGE = "<|eom_id|>"
"""Llama 3 ends a turn with calls by this token where the tool answers next."""

KNOWN_ENDS = frozenset(
    {
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "</s>",
        END_OF_MESSAGE,
        "<EOT>",
        "<|end_of_text|>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
    }
)
"""Tokens at which llama.cpp stops whatever the file says."""


def end_ids(directory: Path) -> tuple[int, ...]:
    """The ids that end an answer, as the model's own files say; generation_config.json comes before config.json.

    Raises:
        ConfigError: they name none, or no ids.
        OSError: a file cannot be read.
    """
    generation = directory / "generation_config.json"
    documents = [read_config(directory)]
    if generation.is_file():
        documents.insert(
            0, read_document(generation, name="generation config", remedy="save the student again")
        )
    given = next((one["eos_token_id"] for one in documents if one.get("eos_token_id") is not None), None)
    listed = given if isinstance(given, list) else [given]
    if not listed or not all(type(one) is int and one >= 0 for one in listed):
        raise ConfigError(
            f"gguf: the student's files must name the token that ends an answer, or it would never stop; give "
            f"generation_config.json an eos_token_id: {given!r:.80}"
        )
    return tuple(dict.fromkeys(listed))


def end_keys(ends: Sequence[int], vocabulary: Vocabulary) -> dict[str, int]:
    """The keys `eos`, `eot`, `eom` that make llama.cpp stop at every end.

    Args:
        ends: the ids that end an answer.
        vocabulary: the tokenizer.

    Raises:
        ConfigError: an id has no token, or there are more ends than a file can name; says which.

    Example:
        >>> tokens = ("a", "<|im_end|>", "<|stop|>", "<|endoftext|>")
        >>> words = Vocabulary(tokens=tokens, types=(1, 3, 3, 3), merges=(), pre="gpt-2", named={"eos_token": 1})
        >>> end_keys([3, 1, 2], words)
        {'eos': 1, 'eot': 2}
    """
    texts = _texts(ends, vocabulary)
    own = vocabulary.named.get("eos_token")
    first = own if own in texts else next(iter(texts))
    keys = {"eos": first}
    message = vocabulary.id_of(END_OF_MESSAGE)
    if message is not None:
        keys["eom"] = message
    rest = [one for one in texts if one not in keys.values() and texts[one] not in KNOWN_ENDS]
    for key in ("eot", "eom"):
        if key not in keys and rest:
            keys[key] = rest.pop(0)
    if rest:
        raise ConfigError(
            f"gguf: a file can name three tokens that end an answer, so llama.cpp would not stop at the others; give "
            f"generation_config.json fewer: {', '.join(f'{texts[one]} ({one})' for one in rest)}"
        )
    # Else llama.cpp takes the first token with a known name as `eot`, by the order of a hash table.
    keys.setdefault("eot", first)
    return {key: keys[key] for key in ("eos", "eot", "eom") if key in keys}


def _texts(ends: Sequence[int], vocabulary: Vocabulary) -> dict[int, str]:
    for one in ends:
        if one >= len(vocabulary.tokens):
            raise ConfigError(
                f"gguf: the token that ends an answer is none of the tokenizer's; mend generation_config.json: {one}"
            )
    return {one: vocabulary.tokens[one] for one in ends}
