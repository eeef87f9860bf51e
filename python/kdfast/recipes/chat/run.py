"""Opens a model and its tools, and starts the chat."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from rich.console import Console

from kdfast.display import Display
from kdfast.errors import DataError
from kdfast.recipes.chat.conversation import Conversation
from kdfast.recipes.chat.prompt import PromptMaker
from kdfast.recipes.chat.session import Session
from kdfast.recipes.first_look.of_model import check_export_settings, check_model
from kdfast.recipes.first_look.of_tools import read_tools
from kdfast.recipes.loaded_model import Runtime, open_runtime
from kdfast.recipes.requests import ChatRequest

_PROMPT = "> "


def run(request: ChatRequest) -> int:
    """Chats until the input ends or the user leaves.

    Returns:
        0.

    Raises:
        ConfigError: there is no such model, tools or template, or this machine lacks the device.
        DataError: the tools cannot be read, or the template refuses them; a damaged export; logits that are NaN;
            without a terminal, a line that cannot be answered.
        OSError: a file cannot be read.
    """
    directory = check_model(request.model)
    check_export_settings(request.model, request)
    tools = read_tools(request.tools) if request.tools is not None else []
    maker = PromptMaker.of(directory, request, tools)
    conversation = Conversation(request.system)
    _try(maker, conversation, request)
    console, interactive = Display().console, sys.stdin.isatty()
    with open_runtime(request.model, request, maker.tokenizer, context=request.context) as runtime:
        console.out(_greeting(request, maker, runtime), highlight=False)
        session = Session(
            name=str(request.model),
            runtime=runtime,
            maker=maker,
            room=int(min(request.context, runtime.context)),
            max_new_tokens=request.max_new_tokens,
            conversation=conversation,
            console=console,
            interactive=interactive,
        )
        session.run(_typed() if interactive else _piped(console))
    return 0


def _try(maker: PromptMaker, conversation: Conversation, request: ChatRequest) -> None:
    """Makes one prompt before the model is loaded: does the template take the tools and the system prompt?"""
    try:
        maker.make([*conversation.messages, {"role": "user", "content": "hello"}])
    except DataError as error:
        source = str(request.tools) if request.tools is not None else None
        raise DataError(error.message, source) from None


def _greeting(request: ChatRequest, maker: PromptMaker, runtime: Runtime) -> str:
    engine = "PyTorch" if runtime.export is None else "llama.cpp"
    names = maker.schema.names if maker.schema is not None else []
    tools = f"tools: {', '.join(names)}" if names else "no tools"
    return f"{request.model} in {engine}; {tools}; /help shows the commands"


def _typed() -> Iterator[str]:
    """The lines of a terminal, until Ctrl-D."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - lets `input` edit the line and remember the last ones
    while True:
        try:
            yield _checked(input(_PROMPT))
        except EOFError:
            print()  # the shell's prompt shall not stand behind ours
            return


def _piped(console: Console) -> Iterator[str]:
    """The lines of a pipe or file, shown as if they were typed."""
    while True:
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError as error:
            raise DataError(f"the input must be UTF-8: {error.reason}", "stdin") from None
        if not line:
            return
        text = _checked(line.rstrip("\r\n"))
        console.out(f"{_PROMPT}{text}", highlight=False)
        yield text


def _checked(line: str) -> str:
    try:
        line.encode()
    except UnicodeEncodeError as error:  # bytes that Python could not decode
        raise DataError(f"the input must be UTF-8: {error.reason}", "stdin") from None
    return line
