"""`kdfast data tokenizer`: a tokenizer for a model that starts from scratch, learned from what it will read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kdfast import _rust
from kdfast.data.control_tokens import ControlTokens, control_tokens
from kdfast.data.template import load_template
from kdfast.errors import ConfigError
from kdfast.files import written_whole
from kdfast.recipes.data.tokenizer_counts import Counter
from kdfast.recipes.data.tokenizer_files import FILES, check_size, learn, write
from kdfast.recipes.data.tokenizer_rows import BYTES, Block, byte_tokenizer, read_blocks
from kdfast.recipes.data.tokenizer_sources import RecordFile

_Ints = NDArray[np.int64]
_SHOWN = 120
"""Tokens of the example that are shown."""
_SHOWN_PROMPT = 60


def train_tokenizer(
    paths: Sequence[Path],
    out: Path,
    *,
    size: int,
    template: str,
    show_tools: bool,
    call_frames: bool = False,
    overwrite: bool = False,
) -> None:
    """Learns a tokenizer from records and writes its directory; the same input gives the same bytes.

    Args:
        paths: records or prompts, JSONL.
        out: the directory to write.
        size: the number of ids, all included.
        template: "hermes" or the path of a .jinja file.
        show_tools: whether prompts show the tools; see `data.show_tools`.
        call_frames: whether each text around the name and the arguments of every call becomes one token.
        overwrite: whether a tokenizer that is there is replaced.

    Raises:
        ConfigError: the output is in the way, the template has no control token at the end of an answer, `size` is too
            small, or larger than what the texts give.
        DataError: a bad line.
        OSError: a file cannot be read or written.
    """
    _check_out(out, overwrite)
    progress = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    with tempfile.TemporaryDirectory(prefix="kdfast-tokenizer-") as folder:
        work = Path(folder)
        found = load_template(template, work, show_tools=show_tools, key="--template")
        tokens = control_tokens(found, call_frames=call_frames)
        check_size(size, tokens)
        named = tokens.named_in(found)
        progress.print(f"reading {', '.join(map(str, paths))}")
        files = [RecordFile.of(path, work) for path in paths]
        single_bytes, byte_of = byte_tokenizer(tokens, work)
        learned = learn(
            _texts(read_blocks(files, work, single_bytes, named), byte_of, progress), size, tokens
        )
        with written_whole(out.resolve()) as beside:
            write(beside, learned, tokens, found.source)
            made = _rust.Tokenizer.from_file(beside)
            counter = Counter(tokenizer=made, tokens=tokens)
            # The stores are there already.
            for block in read_blocks(files, work, single_bytes, named):
                counter.count(block, byte_of)
    _print(out, len(paths), tokens, counter)


def _texts(blocks: Iterable[Block], byte_of: NDArray[np.uint8], progress: Console) -> Iterator[list[str]]:
    """The texts of the blocks, without control tokens."""
    size = 0
    for block in blocks:
        texts = [piece for piece in block.pieces(byte_of)[1] if isinstance(piece, str)]
        size += sum(map(len, texts))
        yield texts
    progress.print(f"learning from {size:,} characters")


def _check_out(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    names = sorted(path.name for path in out.iterdir())
    if names and not overwrite:
        raise ConfigError(f"--out: is there already; take --overwrite, or choose another directory: {out}")
    others = [name for name in names if name not in FILES]
    if others:
        shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        raise ConfigError(
            f"--out: holds files that no tokenizer has, and --overwrite would delete them ({shown}); choose another "
            f"directory: {out}"
        )


def _print(out: Path, files: int, tokens: ControlTokens, counted: Counter) -> None:
    console = Console(highlight=False)
    size, prompts = counted.tokenizer.vocab_size, np.array(counted.prompts)
    answers = np.array([length for length in counted.answers if length])
    learned = size - BYTES - len(tokens.all)
    table = Table(title=escape(str(out)), title_justify="left", show_header=False)
    source = "1 file" if files == 1 else f"{files} files"
    table.add_row("rows", f"{len(prompts):,} of {source}, {len(answers):,} with an answer")
    table.add_row("text", f"{counted.text_bytes:,} bytes, without control tokens")
    table.add_row(
        "vocabulary", f"{size:,}: {BYTES} bytes, {learned:,} learned, {len(tokens.all)} of the template"
    )
    table.add_row("special", escape(" ".join(tokens.special)))
    if tokens.marks:
        table.add_row("marks, not special", escape(" ".join(map(_shown, tokens.marks))))
    table.add_row("an answer ends with", escape(tokens.eos))
    table.add_row("tokens a prompt", _distribution(prompts))
    if len(answers):
        table.add_row("tokens an answer", _distribution(answers))
    if len(answers) == len(prompts):
        table.add_row("tokens a row", _distribution(prompts + answers))
    table.add_row("bytes a token", f"{counted.text_bytes / max(counted.text_tokens, 1):.2f}")
    console.print(table)
    example = _example(counted.tokenizer, *counted.first)
    console.print(f"the first row, with ¦ between its tokens:\n{example}", markup=False, soft_wrap=True)


def _distribution(values: _Ints) -> str:
    return f"mean {values.mean():.1f}, p95 {np.percentile(values, 95, method='inverted_cdf'):.0f}"


def _example(tokenizer: _rust.Tokenizer, ids: list[int], prompt: int) -> str:
    """A row's tokens; of a long row the end of the prompt and the beginning of the answer."""
    start = max(0, prompt - _SHOWN_PROMPT) if len(ids) > _SHOWN else 0
    pieces = [_piece(tokenizer.token_bytes(token)) for token in ids[start : start + _SHOWN]]
    before = [f"({start} tokens before)"] if start else []
    left = len(ids) - start - len(pieces)
    return "¦".join([*before, *pieces, *([f"({left} more tokens)"] if left else [])])


def _shown(text: str) -> str:
    return text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def _piece(content: bytes) -> str:
    r"""A token's text in one line; the bytes of a token that is part of a character.

    Examples:
        >>> _piece(b" room\n"), _piece("\U0001f600".encode()[:2])
        (' room\\n', '<F0 9F>')
    """
    try:
        return _shown(content.decode())
    except UnicodeDecodeError:
        return f"<{content.hex(' ').upper()}>"
