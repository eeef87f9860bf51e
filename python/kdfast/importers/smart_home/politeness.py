"""Polite words around a sentence."""

from __future__ import annotations

import random

from kdfast.importers.smart_home.home import Polite


def polite(text: str, rng: random.Random, words: Polite, *, after: bool = True) -> str:
    """The sentence, now and then with a polite word before or, with `after`, after it."""
    asked = text.split(" ", 1)[0] in words.verbs
    before = (*words.before, *(words.before_verbs if asked else ()))
    if before and rng.random() < words.before_share:
        text = rng.choice(before) + text
    if after and words.after and rng.random() < words.after_share:
        text += rng.choice(words.after)
    return " ".join(text.split())
