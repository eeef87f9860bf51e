"""Choices that config keys, command-line options and parts share. No torch: `--help` reads them."""

DEVICES = ("auto", "cpu", "cuda", "mps")
"""Where a model can run; "auto" = cuda, else mps, else cpu."""

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Number formats: kdfast's name -> torch's name."""

DEFAULT_FORMATS = ("hermes",)
"""Tool-call formats that count unless others are named: the one that students are trained to write."""
