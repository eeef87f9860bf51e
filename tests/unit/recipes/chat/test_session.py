"""A chat with a scripted model: what is typed, what is shown, what the model is asked."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import pytest
import tiny
from rich.console import Console
from scripted import ScriptedEngine
from tiny_run import TOOL

from kdfast._rust import Tokenizer
from kdfast.errors import ConfigError, DataError
from kdfast.recipes.chat.conversation import Conversation
from kdfast.recipes.chat.prompt import PromptMaker
from kdfast.recipes.chat.session import CtrlC, Session
from kdfast.recipes.loaded_model import Runtime
from kdfast.recipes.requests import ModelSettings
from kdfast.speed import Hardware

END = 2
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
WRONG = '<tool_call>\n{"name": "get_weather", "arguments": {"town": "Rome"}}\n</tool_call>'


def no_hardware() -> Hardware:
    raise AssertionError("a chat reports no machine")


class Chat:
    """A session, what it showed and what its engine was asked."""

    def __init__(self, directory: Path, answers: list[str], **options: object) -> None:
        self.shown = io.StringIO()
        self.tokenizer = Tokenizer.from_file(directory)
        on_token = options.pop("on_token", lambda _: None)
        tools = options.pop("tools", (TOOL,))
        self.engine = ScriptedEngine(self.tokenizer, answers, END, on_token)  # type: ignore[arg-type]
        self.session = Session(
            name="runs/x",
            runtime=Runtime(
                directory=directory, engine=self.engine, end_ids=(END,), context=4096, hardware=no_hardware
            ),
            maker=PromptMaker.of(directory, ModelSettings(template="hermes"), tools),  # type: ignore[arg-type]
            conversation=Conversation("Be brief."),
            console=Console(file=self.shown, width=40, force_terminal=False),
            **{"room": 4096, "max_new_tokens": 100} | options,  # type: ignore[arg-type]
        )

    def type(self, *lines: str) -> str:
        """What is shown after these lines."""
        before = len(self.shown.getvalue())
        self.session.run(lines)
        return self.shown.getvalue()[before:]

    def prompt(self, number: int) -> str:
        """The prompt of an answer, as text."""
        return self.tokenizer.decode(self.engine.prompts[number])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_tokenizer(tmp_path_factory.mktemp("session"))


def test_a_call_its_result_and_the_answer(directory: Path) -> None:
    chat = Chat(directory, [CALL, "Warm, 21 🦀."])
    shown = chat.type("  What is the weather in Rome?  ", "")
    assert CALL in shown
    assert '  call: get_weather {"city": "Rome"}  (valid)\n' in shown
    assert "first valid call after" in shown
    assert "/result TEXT answers in the place of get_weather" in shown
    assert chat.prompt(0).count("What is the weather in Rome?<|im_end|>") == 1
    shown = chat.type("/result 21 degrees", "/help")
    assert shown.startswith("Warm, 21 🦀.\n")
    assert "no valid call" in shown
    assert "/new" in shown
    assert "<tool_response>\n21 degrees\n</tool_response>" in chat.prompt(1)
    assert CALL in chat.prompt(1)


def test_calls_that_are_not_valid_say_why(directory: Path) -> None:
    shown = Chat(directory, [f"{WRONG} {CALL[:40]}"]).type("Rome?")
    assert '  call: get_weather {"town": "Rome"}  (not valid)\n' in shown
    assert '    /arguments: the argument "city" is missing\n' in shown
    assert "  no call: one was begun (cut)\n" in shown
    assert "no valid call" in shown


def test_without_tools_calls_are_not_checked(directory: Path) -> None:
    chat = Chat(directory, [WRONG, "Hello."], tools=())
    assert "(not checked: no tools were given)" in chat.type("Rome?")
    assert "valid call" not in chat.type("Hello?")


def test_new_forgets_and_quit_leaves(directory: Path) -> None:
    chat = Chat(directory, ["One.", "Two.", "Three."])
    chat.type("first", "second", "/new", "third", "/quit", "never")
    assert "first" in chat.prompt(1)
    assert "One." in chat.prompt(1)
    assert "first" not in chat.prompt(2)
    assert "Be brief." in chat.prompt(2)
    assert len(chat.engine.prompts) == 3


def test_with_forget_each_sentence_starts_anew_and_results_still_go_on(directory: Path) -> None:
    chat = Chat(directory, ["One.", CALL, "Warm.", "Four."], forget=True)
    chat.type("first", "second", "/result 21", "third")
    assert "first" in chat.prompt(0)
    assert "first" not in chat.prompt(1)
    assert "second" in chat.prompt(2)
    assert "21" in chat.prompt(2)
    assert "second" not in chat.prompt(3)
    assert all("Be brief." in chat.prompt(number) for number in range(4))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/result 21", "/result: no call waits for a result"),
        ("/frobnicate now", "there is no such command; /help shows them: /frobnicate"),
    ],
)
def test_mistakes_are_told_and_end_a_script(directory: Path, line: str, message: str) -> None:
    chat = Chat(directory, ["Hello."])
    assert message in chat.type(line, "Hello?")
    assert len(chat.engine.prompts) == 1
    with pytest.raises(ConfigError, match=message):
        Chat(directory, ["Hello."], interactive=False).type(line)


def test_a_path_is_no_command(directory: Path) -> None:
    assert "Hello." in Chat(directory, ["Hello."]).type("/etc/passwd is a file?")


def test_results_of_two_calls(directory: Path) -> None:
    chat = Chat(directory, [f"{CALL}\n{CALL}", "Done."])
    chat.type("Rome twice?")
    assert "/result: give the result, such as" in chat.type("/result")
    assert "get_weather waits for its result" in chat.type("/result 21")
    assert "Done." in chat.type("/result 22")
    assert len(chat.engine.prompts) == 2


def test_a_full_conversation_says_new_and_forgets_the_question(directory: Path) -> None:
    need = len(
        PromptMaker.of(directory, ModelSettings(template="hermes"), (TOOL,))
        .make([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}])
        .ids
    )
    chat = Chat(directory, ["Hello there, how are you?"], room=need + 3)
    before = list(chat.session.conversation.messages)
    assert "the conversation is full; /new starts again" in chat.type("a " * 50)
    assert chat.session.conversation.messages == before
    assert f"cut: the conversation is full ({need + 3} tokens); /new starts again" in chat.type("a")
    with pytest.raises(DataError, match="the conversation is full; /new starts again"):
        Chat(directory, [], room=10, interactive=False).type("a")


def test_a_long_answer_is_cut(directory: Path) -> None:
    shown = Chat(directory, ["Hello there, how are you?"], max_new_tokens=4).type("a")
    assert "cut after 4 tokens; --max-new-tokens allows more" in shown


def test_nan_ends_the_chat(directory: Path) -> None:
    def fail(_: int) -> None:
        raise FloatingPointError("the model's logits are NaN")

    with pytest.raises(DataError, match="runs/x: cannot answer: the model's logits are NaN"):
        Chat(directory, ["x"], on_token=fail).type("a")


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(directory: Path) -> None:
    def press_once(at: int) -> None:
        if at == 2 and len(chat.engine.prompts) == 1:
            press()

    chat = Chat(directory, ["Hello there, how are you?", "Fine."], on_token=press_once)
    shown = chat.type("a")
    assert "  stopped\n" in shown
    said = chat.session.conversation.messages[-1]["content"]
    assert said
    assert "Hello there, how are you?".startswith(said)
    assert "Fine." in chat.type("b")


def test_a_second_ctrl_c_is_pythons_own_and_so_is_the_first_of_a_script(
    request: pytest.FixtureRequest,
) -> None:
    # A process in the background starts with SIGINT ignored.
    found = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, found))
    before = signal.getsignal(signal.SIGINT)
    with CtrlC(catch=True) as pressed:
        press()
        assert pressed.asked
        with pytest.raises(KeyboardInterrupt):
            press()
    with pytest.raises(KeyboardInterrupt), CtrlC(catch=False):
        press()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_refused_result_can_be_given_again(directory: Path, tmp_path: Path) -> None:
    chat = Chat(directory, [CALL, "Done."])
    chat.type("Rome?")
    maker, waiting = chat.session.maker, list(chat.session.conversation.waiting)
    strict = tmp_path / "strict.jinja"
    strict.write_text(
        "{{ tools }}{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no') }}{% endif %}"
        "<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    )
    chat.session.maker = PromptMaker.of(directory, ModelSettings(template=str(strict)), (TOOL,))
    assert "the chat template cannot take this conversation" in chat.type("/result 21")
    assert chat.session.conversation.waiting == waiting
    chat.session.maker = maker
    assert "Done." in chat.type("/result 21")


def test_names_that_the_model_writes_do_not_steer_the_terminal(directory: Path) -> None:
    call = '<tool_call>\n{"name": "f\\u001b[31m", "arguments": {}}\n</tool_call>'
    chat = Chat(directory, [call * 2], tools=())
    shown = chat.type("a", "/result", "/result 1")
    assert "  call: f\\x1b[31m {}  (not checked" in shown
    assert "/result TEXT answers in the place of f\\x1b[31m\n" in shown
    assert "'/result 21 degrees': f\\x1b[31m waits\n" in shown
    assert "  f\\x1b[31m waits for its result\n" in shown
    assert "\x1b" not in shown
    with pytest.raises(ConfigError, match=r"f\\x1b\[31m waits"):
        Chat(directory, [call], tools=(), interactive=False).type("a", "/result")


def test_an_output_without_unicode_spells_it_out(directory: Path) -> None:
    chat = Chat(directory, ["Warm, 21 🦀."])
    written = io.BytesIO()
    chat.session.console = Console(file=io.TextIOWrapper(written, encoding="ascii"), width=40)
    chat.session.run(["Grüß Rom"])
    assert b"Warm, 21 \\U0001f980.\n" in written.getvalue()
