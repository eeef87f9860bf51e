"""GGUF, the format of llama.cpp: what it can hold, how it is written, and read back."""

from kdfast.export.gguf.end_tokens import end_ids
from kdfast.export.gguf.read import GgufFile, GgufTensor, read_gguf
from kdfast.export.gguf.write import check_parts, check_supported, write_gguf

__all__ = ["GgufFile", "GgufTensor", "check_parts", "check_supported", "end_ids", "read_gguf", "write_gguf"]
