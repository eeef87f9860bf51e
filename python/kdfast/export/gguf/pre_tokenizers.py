"""How llama.cpp cuts text into words, by the name in `tokenizer.ggml.pre`, against what tokenizer.json says.

The table is keyed by structure, not by a model's name: the cuts, and whether a whole word goes before its merges. A
normalizer is no part of the key. llama.cpp has none, so text that NFC would change is read otherwise; the parity of
prompts finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdfast.errors import ConfigError

_REMEDY = "name llama.cpp's own by --pre NAME (the parity of prompts proves it), or export with --target hf"

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased(ending: str) -> str:
    """Words cut where a lower-case letter meets an upper-case one."""
    start = r"[^\r\n\p{L}\p{N}]?"
    return f"{start}{_UPPER}*{_LOWER}+{ending}|{start}{_UPPER}+{_LOWER}*{ending}"


_GPT2 = ("gpt-2",)
_DIGITS = ("digits", "gpt-2")
_LLAMA3 = (rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS}|{_REST}",)
_QWEN2 = (rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}|{_SIGNS}|{_REST}",)
_QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_REST}",
)
_TEKKEN = (rf"{_cased('')}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_REST}",)
_GPT4O = (rf"{_cased(_CONTRACTIONS + '?')}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_REST}",)
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"""
    rf"|{_REST}",
)

PRE_TOKENIZERS: dict[tuple[tuple[str, ...], bool], str] = {
    (_GPT2, False): "gpt-2",
    (_DIGITS, False): "smollm",
    (_LLAMA3, True): "llama-bpe",
    (_LLAMA3, False): "dbrx",
    (_QWEN2, False): "qwen2",
    (_QWEN35, False): "qwen35",
    (_TEKKEN, True): "tekken",
    (_GPT4O, False): "gpt-4o",
    (_DEEPSEEK3, False): "deepseek-v3",
}
"""The cuts one after the other, and `ignore_merges` -> llama.cpp's name."""


def pre_tokenizer(document: Mapping[str, Any]) -> str:
    """llama.cpp's name for what a tokenizer.json does before its merges.

    Args:
        document: the content of tokenizer.json.

    Raises:
        ConfigError: llama.cpp is not known to do the same; names the cuts.

    Example:
        >>> document = {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}, "model": {"type": "BPE"}}
        >>> pre_tokenizer(document)
        'gpt-2'
    """
    steps = _steps(document.get("pre_tokenizer"))
    model = document.get("model") or {}
    key = (tuple(steps), bool(model.get("ignore_merges")))
    if not _known_normalizer(document.get("normalizer")):
        raise ConfigError(
            f"gguf: llama.cpp changes no text before it cuts it, this tokenizer does; {_REMEDY}: normalizer "
            f"{document['normalizer']!r:.200}"
        )
    if key not in PRE_TOKENIZERS:
        merges = ", ignore_merges" if key[1] else ""
        raise ConfigError(
            f"gguf: this tokenizer's pre-tokenizer is none that llama.cpp is known to have; {_REMEDY}: "
            f"{' then '.join(steps) or 'none'}{merges}"
        )
    return PRE_TOKENIZERS[key]


def _known_normalizer(normalizer: Any) -> bool:
    if normalizer is None:
        return True
    if not isinstance(normalizer, Mapping):
        return False
    if normalizer.get("type") == "Sequence":
        return all(_known_normalizer(one) for one in normalizer.get("normalizers") or [])
    return normalizer.get("type") == "NFC"


def _steps(pre: Any) -> list[str]:
    """The cuts, in order; one that the table cannot hold is written out, so that it is found nowhere."""
    if not isinstance(pre, Mapping):
        return []
    kind = pre.get("type")
    if kind == "Sequence":
        return [step for one in pre.get("pretokenizers") or [] for step in _steps(one)]
    if kind == "ByteLevel" and not pre.get("add_prefix_space"):
        return ["gpt-2"] if pre.get("use_regex", True) else []
    if kind == "Digits" and pre.get("individual_digits"):
        return ["digits"]
    pattern = pre.get("pattern")
    if kind == "Split" and isinstance(pattern, Mapping) and isinstance(pattern.get("Regex"), str):
        # Some files hold the line ends themselves, others the escapes.
        cut = pattern["Regex"].replace("\r", r"\r").replace("\n", r"\n")
        behavior, inverted = str(pre.get("behavior")), bool(pre.get("invert"))
        # "Removed" and inverted keeps what matches: the same where every character matches, as in these.
        if (behavior.lower(), inverted) in (("isolated", False), ("removed", True)):
            return [cut]
    return [f"{dict(pre)!r}"]
