"""Records as rows of tokens, read as training reads them, for a tokenizer that does not exist yet or is new.

A tokenizer of single bytes reads them first: its rows hold the text that a model will read and write, and the control
tokens that the chat template writes. No torch in here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from kdfast import _rust
from kdfast.config import DataConfig
from kdfast.data.call_format import call_format
from kdfast.data.control_tokens import ControlTokens
from kdfast.data.template import Template
from kdfast.errors import DataError
from kdfast.recipes.data.tokenizer_sources import RecordFile

BYTES = 256
_Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some rows' tokens, end to end.

    Attributes:
        ids: the ids, int32 [N]. A row without an answer of its own ends with its prompt.
        starts: where each row begins in `ids`, int64 [R].
        answers: where each row's answer begins, int64 [R]; there is none where the row ends there.
        ends: where each row ends, int64 [R].
    """

    ids: NDArray[np.int32]
    starts: _Ints
    answers: _Ints
    ends: _Ints

    def pieces(self, byte_of: NDArray[np.uint8]) -> tuple[_Ints, list[str | int]]:
        """Rows of single bytes, cut at control tokens and between prompt and answer, where training cuts too.

        Args:
            byte_of: the byte of each id below 256.

        Returns:
            where each piece begins in `ids`, and after them where the last one ends, [P+1]; the pieces, each a text or
            a control token's id.
        """
        control = self.ids >= BYTES
        places = np.flatnonzero(control)
        edges = np.unique(np.concatenate([self.starts, self.answers, self.ends, places, places + 1]))
        content = byte_of[np.minimum(self.ids, BYTES - 1)].tobytes()
        cuts = zip(pairwise(edges.tolist()), control[edges[:-1]].tolist(), strict=True)
        return edges, [
            int(self.ids[start]) if is_control else content[start:end].decode()
            for (start, end), is_control in cuts
        ]


def byte_tokenizer(tokens: ControlTokens, folder: Path) -> tuple[_rust.Tokenizer, NDArray[np.uint8]]:
    """A tokenizer with a token for each byte, ids 0 to 255, and the control tokens after them.

    Args:
        tokens: the control tokens.
        folder: where its file is written.

    Returns:
        the tokenizer, and the byte of each id, uint8 [256].

    Raises:
        OSError: the file cannot be written.
    """
    alphabet = {sign: index for index, sign in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(tokens.special))
    made.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in tokens.marks])
    path = folder / "bytes.json"
    path.write_text(made.to_str(), encoding="utf-8")
    tokenizer = _rust.Tokenizer.from_file(path)
    return tokenizer, np.frombuffer(b"".join(map(tokenizer.token_bytes, range(BYTES))), dtype=np.uint8)


def read_blocks(
    files: Sequence[RecordFile], folder: Path, tokenizer: _rust.Tokenizer, template: Template
) -> Iterator[Block]:
    """Reads files as training would, with every check of a line but that of a call against its tool's schema.

    Args:
        files: the files.
        folder: where the token stores are written.
        tokenizer: the tokenizer.
        template: the chat template.

    Yields:
        the rows of the files, in their order, a block at a time.

    Raises:
        DataError: a bad line, by file and line.
        OSError: a file cannot be read or written.
    """
    compiled = template.compile()
    formats = (call_format(compiled) or "hermes",)
    for file in files:
        try:
            report = _rust.TokenStore.build(
                file.read,
                folder,
                tokenizer,
                compiled,
                supervise="last",
                prefix_tokens=DataConfig.prefix_tokens,
                formats=formats,
                invalid_calls="keep",
                content_tokens=DataConfig.content_tokens,
                on_error="raise",
                max_rejected_fraction=0.0,
                max_line_bytes=DataConfig.max_line_bytes,
                allow_reasoning=True,
                record_k=1,
                threads=0,
            )
        except DataError as error:
            raise file.own_error(error) from None
        with pyarrow.memory_map(str(report.path)) as source, pyarrow.ipc.open_stream(source) as reader:
            for batch in reader:
                yield _block(batch, file)


def _block(batch: pa.RecordBatch, file: RecordFile) -> Block:
    rows = batch.column("ids")
    offsets = rows.offsets.to_numpy().astype(np.int64)
    ids = rows.values.to_numpy()[offsets[0] : offsets[-1]]
    starts, ends = offsets[:-1] - offsets[0], offsets[1:] - offsets[0]
    answers = starts + batch.column("response_start").to_numpy()
    own = file.answered(batch.column("line").to_numpy())
    if own.all():
        return Block(ids=ids.copy(), starts=starts, answers=answers, ends=ends)
    # A stand-in's tokens are left out: rows move to the left.
    lengths = np.where(own, ends, answers) - starts
    moved = np.cumsum(lengths) - lengths
    kept = [ids[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    return Block(
        ids=np.concatenate(kept), starts=moved, answers=moved + answers - starts, ends=moved + lengths
    )
