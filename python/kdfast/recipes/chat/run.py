"""Opens a model and its tools, and starts the chat."""

from __future__ import annotations

from kdfast.display import Display
from kdfast.errors import DataError
from kdfast.recipes.chat.conversation import Conversation
from kdfast.recipes.chat.lines import person_types, piped_lines, typed_lines
from kdfast.recipes.chat.prompt import PromptMaker, TooLongError
from kdfast.recipes.chat.session import Session
from kdfast.recipes.first_look.of_model import check_export_settings, check_model, export_warning
from kdfast.recipes.first_look.of_tools import read_tools
from kdfast.recipes.loaded_model import Runtime, open_runtime
from kdfast.recipes.requests import ChatRequest

_SHOWN_TOOLS = 10
"""Tools that the greeting names."""


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
    warning = export_warning(request.model)
    tools = read_tools(request.tools) if request.tools is not None else []
    maker = PromptMaker.of(directory, request, tools)
    conversation = Conversation(request.system)
    _try(maker, conversation, request)
    console, interactive = Display().console, person_types()
    with open_runtime(request.model, request, maker.tokenizer, context=request.context) as runtime:
        session = Session(
            name=str(request.model),
            runtime=runtime,
            maker=maker,
            room=int(min(request.context, runtime.context)),
            max_new_tokens=request.max_new_tokens,
            conversation=conversation,
            console=console,
            forget=request.forget,
            interactive=interactive,
        )
        session.say(_greeting(request, maker, runtime))
        if warning is not None:
            session.say(f"warning: {warning}")
        session.run(typed_lines(session.say) if interactive else piped_lines(session.say))
    return 0


def _try(maker: PromptMaker, conversation: Conversation, request: ChatRequest) -> None:
    """Makes one prompt before the model is loaded: does the template take the tools and the system prompt?"""
    source = str(request.tools) if request.tools is not None else None
    try:
        maker.make([*conversation.messages, {"role": "user", "content": "hello"}])
    except TooLongError as error:
        raise DataError(
            f"the tools and the system prompt are too long for any context: more than {error.at_least}",
            source,
        ) from None
    except DataError as error:
        raise DataError(error.message, source) from None


def _greeting(request: ChatRequest, maker: PromptMaker, runtime: Runtime) -> str:
    engine = "PyTorch" if runtime.export is None else "llama.cpp"
    names = maker.schema.names if maker.schema is not None else []
    more = f" and {len(names) - _SHOWN_TOOLS} more" if len(names) > _SHOWN_TOOLS else ""
    tools = f"tools: {', '.join(names[:_SHOWN_TOOLS])}{more}" if names else "no tools"
    return f"{request.model} in {engine}; {tools}; /help shows the commands"
