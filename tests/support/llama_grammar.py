"""llama.cpp's own grammar matcher, from the library of the wheel xllamacpp: the oracle for grammars."""

import ctypes
import functools
import importlib.util
from pathlib import Path

_SIGNATURES = {
    "_Z23llama_grammar_init_implPK11llama_vocabPKcS3_bPS3_mPKim": (
        ctypes.c_void_p,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_bool]
        + [ctypes.c_void_p, ctypes.c_size_t] * 2,
    ),
    "_Z20llama_grammar_acceptP13llama_grammarj": (None, [ctypes.c_void_p, ctypes.c_uint32]),
    "_Z24llama_grammar_get_stacksP13llama_grammar": (ctypes.c_void_p, [ctypes.c_void_p]),
    "_Z23llama_grammar_free_implP13llama_grammar": (None, [ctypes.c_void_p]),
}


@functools.cache
def _functions():
    spec = importlib.util.find_spec("xllamacpp")
    library = ctypes.CDLL(str(next(Path(spec.origin).parent.glob("xllamacpp*.so"))))
    found = []
    for name, (result, arguments) in _SIGNATURES.items():
        function = library[name]
        function.restype, function.argtypes = result, arguments
        found.append(function)
    return found


class LlamaGrammar:
    """A parsed grammar; `accepts` says whether a text is a whole sentence of it, `begins` whether it can become one."""

    def __init__(self, text):
        self.text = text.encode()
        assert self._walk("") is not None, f"llama.cpp does not parse this grammar:\n{text}"

    def accepts(self, text):
        return 0 in self._walk(text)

    def begins(self, text):
        return bool(self._walk(text))

    def _walk(self, text):
        """How many elements are left on each of the parser's stacks after the text; None = the grammar is broken."""
        start, accept, stacks, free = _functions()
        grammar = start(None, self.text, b"root", False, None, 0, None, 0)
        if not grammar:
            return None
        left = _lengths(stacks(grammar))
        for char in text:
            accept(grammar, ord(char))
            left = _lengths(stacks(grammar))
            if not left:
                break
        free(grammar)
        return left


def _lengths(vector):
    """The lengths of the vectors in a C++ vector of vectors of pointers."""
    word = ctypes.sizeof(ctypes.c_void_p)
    first, last = _ends(vector)
    return [(end - start) // word for start, end in (_ends(at) for at in range(first, last, 3 * word))]


def _ends(vector):
    pointers = (ctypes.c_void_p * 3).from_address(vector)
    return pointers[0] or 0, pointers[1] or 0
