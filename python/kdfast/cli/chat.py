"""`kdfast chat`: type to a model, and see its calls."""

# ruff: noqa: D301 (click's mark for a paragraph to leave alone is a real backspace)

from __future__ import annotations

from typing import Any

import click

from kdfast.cli.arguments import PATH
from kdfast.cli.model_options import chat_options, look_at_model, max_new_tokens
from kdfast.recipes.first_look.files import check_named, template_problem
from kdfast.recipes.first_look.of_tools import read_tools
from kdfast.recipes.requests import ChatRequest


@click.command()
@click.argument("model", metavar="RUN_OR_EXPORT", type=PATH)
@click.option("--tools", type=PATH, help="A JSON list of tools (OpenAI's form, bare functions, or MCP's).")
@click.option("--system", metavar="TEXT", help="The system prompt.")
@max_new_tokens(default=ChatRequest.max_new_tokens)
@click.option(
    "--context",
    type=click.IntRange(min=2),
    default=ChatRequest.context,
    show_default=True,
    help="Room for the conversation, in tokens; at most what the model reads.",
)
@click.option(
    "--forget",
    is_flag=True,
    help="Each sentence starts a new conversation: for a student that learned single commands.",
)
@chat_options
def chat(**options: Any) -> int:
    """Chat with RUN_OR_EXPORT: type a sentence, see its tokens, its tool calls and its times as they come.

    The model is the student of a run folder, an export for llama.cpp, or any Hugging Face directory with a
    tokenizer.json. The prompt is rendered and tokenised as in training, and the answer is greedy.

    After each answer come the calls in it, valid by their schemas or with what is wrong, and the times: to the first
    token, tokens per second, and to the first valid call (in tokens and ms). `/result TEXT` answers a call in the
    tool's place; `/new` starts again; `/help` shows all commands. Ctrl-C stops an answer, Ctrl-D leaves.

    Lines can come from a pipe. Then the first line that cannot be answered ends the chat with an error.

    \b
    Examples:
      kdfast chat runs/quickstart --tools .cache/quickstart/data/tools.json --forget
      kdfast chat runs/quickstart-llm/export/gguf --tools tools.json --threads 2
      echo "What is the weather in Rome?" | kdfast chat models/student --tools tools.json --template hermes

    \b
    tools.json:
      [{"name": "get_weather", "description": "Weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}]

    \b
    Exit codes: 0 left; 1 the machine failed or a bug; 2 no such model or tools, or bad ones; 130 stopped.
    """
    look_at_model(options, "model")
    check_named([("--template", template_problem(options["template"]))])
    if options["tools"] is not None:
        read_tools(options["tools"])
    from kdfast.recipes.chat import run

    return run(ChatRequest(**options))
