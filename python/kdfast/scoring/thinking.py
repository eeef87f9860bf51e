"""Whether an answer begins inside a thinking block."""

from __future__ import annotations

from kdfast.config.choices import Thinking


def thinking_after(prompt: str) -> Thinking:
    r"""The state in which the answer to a prompt begins.

    It is "open" if the prompt ends with the opening of a thinking block. Then the answer has only the block's end, and
    calls before that end are drafts (see `kdfast.find_tool_calls`).

    Args:
        prompt: the rendered prompt, generation prompt included.

    Examples:
        >>> thinking_after("<|im_start|>assistant\n<think>\n")
        'open'
        >>> thinking_after("<|im_start|>assistant\n<think>\n\n</think>\n\n")
        'closed'
    """
    from kdfast._rust import thinking_closing

    return "closed" if thinking_closing(prompt) is None else "open"
