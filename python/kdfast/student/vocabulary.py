"""Checks that the ids of student and teacher mean the same tokens."""

from __future__ import annotations

import json
from pathlib import Path

from kdfast.errors import DataError


def read_pieces(tokenizer: Path) -> list[str | None]:
    """The token of every id of a tokenizer, as written in its file; None for an id without a token.

    Args:
        tokenizer: a `tokenizer.json`, or a directory that holds one.

    Raises:
        DataError: the file is missing, or no tokenizer file.
    """
    path = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = document["model"]["vocab"]
        # unigram models list [piece, score] in the order of their ids, the others map pieces to ids
        pairs = (
            [(piece, index) for index, (piece, _) in enumerate(vocabulary)]
            if isinstance(vocabulary, list)
            else list(vocabulary.items())
        )
        pairs += [(token["content"], token["id"]) for token in document.get("added_tokens") or []]
    except OSError as cause:
        raise DataError(f"cannot read the tokenizer file: {cause.strerror}", str(path)) from cause
    except (ValueError, KeyError, TypeError) as cause:
        raise DataError("this is no tokenizer.json of the tokenizers library", str(path)) from cause
    pieces: list[str | None] = [None] * (max((index for _, index in pairs), default=-1) + 1)
    for piece, index in pairs:
        pieces[index] = piece
    return pieces


def check_vocabulary(student: Path, teacher: Path, *, student_size: int, teacher_size: int) -> int:
    """Checks that each id that both know means the same token to both.

    One vocabulary may be longer than the other (extra special tokens; 151,936 against 152,064 rows). Rows of a model
    beyond its own tokenizer are padding and never become ids; the caller must mask the teacher's padding rows.

    Args:
        student: the student's `tokenizer.json` or its directory.
        teacher: the teacher's `tokenizer.json` or its directory.
        student_size: rows of the student's output layer.
        teacher_size: rows of the teacher's output layer.

    Returns:
        the number of ids that both know; the teacher's log-probabilities are taken over these ids only.

    Raises:
        DataError: an id means different tokens, or a model has fewer rows than its tokenizer has ids.
    """
    own, other = read_pieces(student), read_pieces(teacher)
    for who, pieces, size in (("student", own, student_size), ("teacher", other, teacher_size)):
        if len(pieces) > size:
            raise DataError(
                f"the {who}'s tokenizer has more ids than the model has rows; "
                f"use the model's own tokenizer: {len(pieces)} > {size}"
            )
    for index, (mine, theirs) in enumerate(zip(own, other, strict=False)):
        if mine != theirs:
            raise DataError(
                "data.tokenizer: student and teacher use different vocabularies, use the teacher's tokenizer for both: "
                f"id {index} is {mine!r} to the student and {theirs!r} to the teacher"
            )
    return min(len(own), len(other))
