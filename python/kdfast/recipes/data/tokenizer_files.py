"""Learns a byte-level BPE from texts, and writes the directory of a tokenizer. No torch in here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from kdfast.data.control_tokens import ControlTokens
from kdfast.errors import ConfigError
from kdfast.recipes.data.tokenizer_rows import BYTES

FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""The files of a tokenizer's directory."""

_NO_LIMIT = int(1e30)
"""What transformers writes where only the model limits the length."""
_LEAST_TIMES = 2
"""How often a pair must be there to become a token: what is there once would be learned by heart."""


def check_size(size: int, tokens: ControlTokens) -> None:
    """Checks that a vocabulary has room for each byte and the control tokens.

    Args:
        size: the number of ids.
        tokens: the template's control tokens.

    Raises:
        ConfigError: it has not.
    """
    least = BYTES + len(tokens.all)
    if size < least:
        raise ConfigError(
            f"--vocab: must be at least {least}, for {BYTES} bytes and {len(tokens.all)} tokens of the chat template "
            f"({', '.join(tokens.all)}), got {size}"
        )


def learn(texts: Iterable[list[str]], size: int, tokens: ControlTokens) -> Tokenizer:
    """Learns a vocabulary of exactly `size` ids. The same texts in the same order give the same tokenizer.

    Words are cut as GPT-2 cuts them, which llama.cpp knows as "gpt-2": a number is one word.

    Args:
        texts: the texts without control tokens, some at a time.
        size: the number of ids, all included: special tokens first, then bytes and what is learned, then marks.
        tokens: the template's control tokens.

    Raises:
        ConfigError: the texts do not give as many tokens, or a mark is one of them.
    """
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(tokens.marks),
        min_frequency=_LEAST_TIMES,
        special_tokens=list(tokens.special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=sys.stderr.isatty(),
    )
    made.train_from_iterator(texts, trainer)
    learned = [mark for mark in tokens.marks if made.token_to_id(mark) is not None]
    if learned:
        raise ConfigError(
            f"--call-frames: {learned[0]!r} is learned as an ordinary token too, so it cannot be a mark; leave "
            "--call-frames out"
        )
    made.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in tokens.marks])
    found = made.get_vocab_size()
    if found != size:
        raise ConfigError(
            f"--vocab: only {found:,} tokens can be learned from these texts (what is there once is not learned); give "
            f"--vocab {found} or more text, got {size}"
        )
    return made


def write(directory: Path, tokenizer: Tokenizer, tokens: ControlTokens, template: str) -> None:
    """Writes the files of a tokenizer into an existing directory.

    Args:
        directory: the directory.
        tokenizer: the tokenizer.
        tokens: its control tokens.
        template: the chat template's source.

    Raises:
        OSError: a file cannot be written.
    """
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens.bos,
        "eos_token": tokens.eos,
        "pad_token": tokens.pad,
        "unk_token": tokens.pad,
        "clean_up_tokenization_spaces": False,
        "model_max_length": _NO_LIMIT,
    }
    contents = (tokenizer.to_str(pretty=True), json.dumps(settings, indent=2, ensure_ascii=False), template)
    for name, text in zip(FILES, contents, strict=True):
        end = "" if name.endswith(".jinja") else "\n"
        (directory / name).write_text(text + end, encoding="utf-8", newline="\n")
