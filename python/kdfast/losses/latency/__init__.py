"""Losses of a whole answer: how long it is expected to be, and how soon it opens its tool call."""
