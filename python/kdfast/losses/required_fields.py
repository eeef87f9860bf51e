"""Which answers are complete: the rule by which the origin's length loss excused rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdfast._rust import ToolSchema, required_fields_present


def compute_required_fields_present(
    texts: Sequence[str], tools: Sequence[ToolSchema | list[dict[str, Any]] | str]
) -> Tensor:
    """Whether each answer calls tools and every call has all arguments that its tool requires.

    For roll-outs of the student: excused from a length penalty are the answers that are complete. (The batch field
    `required_fields_present` is about the teacher's call: excusing by it would switch the loss off.)

    Args:
        texts: B answers.
        tools: B tool lists, one an answer: definitions, their JSON text, or a compiled `ToolSchema`.

    Returns:
        [B] bool; false where an answer has no complete call.

    Raises:
        SchemaError: a tool list is no list of tool definitions.
        ValueError: not one tool list an answer.

    Example:
        >>> tool = {"name": "f", "parameters": {"type": "object", "required": ["n"]}}
        >>> call = '<tool_call>{"name": "f", "arguments": {"n": 1}}</tool_call>'
        >>> compute_required_fields_present([call, "no"], [[tool], [tool]])
        tensor([ True, False])
    """
    if len(texts) != len(tools):
        raise ValueError(f"tools must have one list an answer ({len(texts)}): {len(tools)}")
    present = [required_fields_present(text, own) for text, own in zip(texts, tools, strict=True)]
    return torch.tensor(present, dtype=torch.bool)
