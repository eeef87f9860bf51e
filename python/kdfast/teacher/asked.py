"""One request to a teacher: the prompt that it is for, and what is known of it before it is sent."""

from __future__ import annotations

from dataclasses import dataclass, field

from kdfast.config.choices import Thinking
from kdfast.teacher.api.journal import Request
from kdfast.teacher.api.tool_names import ToolNames
from kdfast.teacher.prompts import Prompt


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A prompt and one request for it.

    Attributes:
        prompt: the prompt, private text replaced if the config says so.
        request: what is sent. Its order is `prompt.index * answers_per_prompt + sample`.
        names: the tools' names as they are sent, and the way back.
        input_tokens: the prompt's tokens, counted with `data.tokenizer`.
        output_tokens: the most tokens that the request allows its answer, over all choices, without the reasoning that
            the server adds; 0 = `teacher.max_new_tokens`.
        shared_tokens: those at its start that the request before it in the job has, too.
        worst_micro: the most that the request can cost, in millionths of the currency.
        thinking: "open" if the prompt's text opens a thinking block, so that the answer begins inside it.
    """

    prompt: Prompt
    request: Request
    names: ToolNames = field(default_factory=lambda: ToolNames([]))
    input_tokens: int
    output_tokens: int = 0
    shared_tokens: int = 0
    worst_micro: int = 0
    thinking: Thinking = "closed"
