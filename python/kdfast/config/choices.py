"""Choices that config keys, command-line options and parts share. No torch: `--help` reads them."""

from typing import Literal, get_args

DEVICES = ("auto", "cpu", "cuda", "mps")
"""Where a model can run; "auto" = cuda, else mps, else cpu."""

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Number formats: kdfast's name -> torch's name."""

DEFAULT_FORMATS = ("hermes",)
"""Tool-call formats that count where nothing names one: kdfast's own chat template writes it."""

CallFormat = Literal[
    "auto", "hermes", "granite", "mistral", "llama3", "fenced", "array", "object", "openai"
]  # fmt: skip
"""How calls are written; "auto" = as the chat template writes them."""

CALL_FORMATS: tuple[str, ...] = get_args(CallFormat)

Thinking = Literal["open", "closed"]
"""Whether an answer begins inside a thinking block, which its prompt opens."""
