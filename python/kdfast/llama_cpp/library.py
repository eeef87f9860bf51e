"""llama.cpp's functions, by ctypes from the wheel `xllamacpp`.

The wheel's Python module offers the server only. Its shared library exports llama.cpp's C functions too, which give the
logits. The library is found without importing the module.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import importlib.metadata
import importlib.util
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdfast.errors import ConfigError

WHEEL = "xllamacpp"
INSTALL = "pip install 'kdfast[export]'"

_HANDLE = ctypes.c_void_p
_INT = ctypes.c_int32
_WARN, _ERROR = 3, 4  # levels of llama.cpp's log
_LOGGER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, _HANDLE)


class Params(ctypes.Structure):
    """A parameter struct of llama.cpp, passed by value. It is larger than any of them: what comes after is not read."""

    _fields_ = (("words", ctypes.c_uint32 * 256),)


class Batch(ctypes.Structure):
    """`llama_batch`. Null positions and sequences mean: append to sequence 0."""

    _fields_ = (
        ("n_tokens", _INT),
        ("token", ctypes.POINTER(_INT)),
        ("embd", _HANDLE),
        ("pos", _HANDLE),
        ("n_seq_id", _HANDLE),
        ("seq_id", _HANDLE),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


_Signature = tuple[Any, tuple[Any, ...]]
_SIGNATURES: dict[str, _Signature] = {
    "llama_log_set": (None, (_LOGGER, _HANDLE)),
    "llama_backend_init": (None, ()),
    "llama_model_default_params": (Params, ()),
    "llama_model_load_from_file": (_HANDLE, (ctypes.c_char_p, Params)),
    "llama_model_free": (None, (_HANDLE,)),
    "llama_model_n_ctx_train": (_INT, (_HANDLE,)),
    "llama_model_meta_val_str": (_INT, (_HANDLE, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)),
    "llama_model_get_vocab": (_HANDLE, (_HANDLE,)),
    "llama_vocab_n_tokens": (_INT, (_HANDLE,)),
    "llama_vocab_is_eog": (ctypes.c_bool, (_HANDLE, _INT)),
    "llama_tokenize": (
        _INT,
        (_HANDLE, ctypes.c_char_p, _INT, ctypes.POINTER(_INT), _INT, ctypes.c_bool, ctypes.c_bool),
    ),
    "llama_context_default_params": (Params, ()),
    "llama_init_from_model": (_HANDLE, (_HANDLE, Params)),
    "llama_free": (None, (_HANDLE,)),
    "llama_n_ctx": (ctypes.c_uint32, (_HANDLE,)),
    "llama_n_batch": (ctypes.c_uint32, (_HANDLE,)),
    "llama_set_n_threads": (None, (_HANDLE, _INT, _INT)),
    "llama_get_memory": (_HANDLE, (_HANDLE,)),
    "llama_memory_clear": (None, (_HANDLE, ctypes.c_bool)),
    "llama_decode": (_INT, (_HANDLE, Batch)),
    "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), (_HANDLE, _INT)),
}


@dataclass(frozen=True, kw_only=True)
class Library:
    """llama.cpp's functions, and what it complained about last.

    Attributes:
        functions: with the types of their arguments.
        complaints: the last (level, line) of its log, warnings (3) and errors (4) only.
        logger: the callback that fills `complaints`; llama.cpp calls it as long as the process lives.
    """

    functions: ctypes.CDLL
    complaints: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=50))
    logger: Any = None

    def reason(self) -> str:
        """The first error since `complaints` was cleared, in one line; without one the last warning."""
        errors = [line for level, line in self.complaints if level == _ERROR]
        warnings = [line for level, line in self.complaints if level == _WARN]
        return (errors[:1] or warnings[-1:] or ["llama.cpp gives no reason"])[0]


def version() -> str | None:
    """The version of the wheel `xllamacpp`; None = not installed, or not known."""
    try:
        return importlib.metadata.version(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        return None


def require_llama_cpp() -> None:
    """Checks that llama.cpp can be used here, before any work.

    Raises:
        ConfigError: xllamacpp is not installed, or it lacks a function that is needed.
    """
    load_library()


@functools.cache
def load_library() -> Library:
    """llama.cpp, loaded once a process, its log silenced.

    Raises:
        ConfigError: xllamacpp is not installed, or it lacks a function that is needed.
    """
    lacking = ""
    for file in _libraries():
        try:
            functions = ctypes.CDLL(str(file))
        except OSError as error:
            raise ConfigError(
                f"llama.cpp's library does not load on this machine ({error}); {INSTALL} installs it again: {file.name}"
            ) from None
        lacking = next((name for name in _SIGNATURES if not hasattr(functions, name)), "")
        if not lacking:
            return _prepare(functions)
    what = f"it has no function {lacking}" if lacking else "it has no library"
    raise ConfigError(
        f"this version of xllamacpp does not serve; {INSTALL} installs one that does: {version()} ({what})"
    )


def omp_threads() -> int:
    """The threads that OMP_NUM_THREADS asks for, as torch reads it; 0 = it asks for none.

    Two processes whose threads are more than the cores wait for each other by spinning, and nearly stand still.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def usable_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _libraries() -> Iterator[Path]:
    found = importlib.util.find_spec(WHEEL)
    if found is None or found.origin is None:
        raise ConfigError(f"llama.cpp is not installed; {INSTALL} installs it: no package {WHEEL}")
    package = Path(found.origin).resolve().parent
    for pattern in ("*.so", "*.pyd", "*.dylib"):
        yield from sorted(package.glob(pattern))


def _prepare(functions: ctypes.CDLL) -> Library:
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(functions, name)
        function.restype, function.argtypes = result, arguments
    complaints: deque[tuple[int, str]] = deque(maxlen=50)

    def keep(level: int, text: bytes | None, _: Any) -> None:
        if level in (_WARN, _ERROR) and text:
            complaints.append((level, " ".join(text.decode(errors="replace").split())))

    logger = _LOGGER(keep)
    functions.llama_log_set(logger, None)
    # A line that llama.cpp writes while the process ends must not call into an interpreter that is gone.
    atexit.register(functions.llama_log_set, _LOGGER(), None)
    functions.llama_backend_init()
    return Library(functions=functions, complaints=complaints, logger=logger)
