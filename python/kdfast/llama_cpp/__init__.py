"""llama.cpp, the runtime that reads the exports: its logits and tokenizer in this process, and its own server.

It comes with the wheel `xllamacpp`, of the extra `kdfast[export]`. Nothing here needs torch.
"""

from kdfast.llama_cpp.library import require_llama_cpp, version
from kdfast.llama_cpp.loading import check_gguf
from kdfast.llama_cpp.model import LlamaCppModel
from kdfast.llama_cpp.server import ChatAnswer, LlamaCppServer, serve

__all__ = [
    "ChatAnswer",
    "LlamaCppModel",
    "LlamaCppServer",
    "check_gguf",
    "require_llama_cpp",
    "serve",
    "version",
]
