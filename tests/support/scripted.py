"""An engine that says what a test wants, and the files that a chat needs beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdfast._rust import Tokenizer


class ScriptedEngine:
    """Answers the next text of a list to each prompt, then the token that ends an answer.

    Args:
        tokenizer: of the texts.
        answers: one a prompt.
        end_id: what comes after an answer.
        on_token: called before each token with the number of tokens since the prompt.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        answers: Sequence[str],
        end_id: int,
        on_token: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.prompts: list[list[int]] = []
        self._answers = [[*tokenizer.encode(text), end_id] for text in answers]
        self._on_token = on_token
        self._at = 0

    def reset(self) -> None:
        """Forgets where it is in the answer."""
        self._at = 0

    def prefill(self, ids: Sequence[int]) -> None:
        """Remembers the prompt."""
        self.prompts.append(list(ids))
        self._at = 0

    def next(self) -> int:
        """The next token of the answer."""
        self._on_token(self._at)
        self._at += 1
        return self._answers[len(self.prompts) - 1][self._at - 1]
