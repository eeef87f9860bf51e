"""llama.cpp's own server: the prompt it makes, the calls it finds, and no process left behind."""

import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import resources

import pytest
from tiny_gguf import write_llama, write_scripted
from tiny_models import tiny_llama, write_tokenizer

from kdfast.errors import DataError
from kdfast.llama_cpp import LlamaCppModel, LlamaCppServer, serve
from kdfast.llama_cpp.process import ServerProcess

pytestmark = pytest.mark.slow

WEATHER = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
TIME = '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>'
TEMPLATE = resources.files("kdfast.templates").joinpath("hermes.jinja").read_text(encoding="utf-8")
USER = {"role": "user", "content": "What is the weather in Paris, and how late is it?"}


def tool(name, **properties):
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


TOOLS = [tool("weather", city={"type": "string"}), tool("time")]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A model that answers everything with two calls."""
    return write_scripted(tmp_path_factory.mktemp("calls") / "calls.gguf", (WEATHER, "\n" + TIME), TEMPLATE)


@pytest.fixture(scope="module")
def server(file):
    with serve(file, context=2048, threads=1) as server:
        yield server


def test_its_parser_finds_parallel_calls(server):
    answer = server.chat([USER], TOOLS, max_tokens=20)
    assert answer.tool_calls == (("weather", '{"city": "Paris"}'), ("time", "{}"))
    assert answer.finish_reason == "tool_calls"
    assert not answer.content
    assert answer.error is None


def test_it_says_what_the_model_wrote_before_the_parser(server):
    answer = server.chat([USER], TOOLS, max_tokens=20)
    assert answer.raw_text == f"{WEATHER}\n{TIME}"
    assert answer.tokens == (259, 260, 258)


def test_without_tools_a_call_is_text(server):
    answer = server.chat([USER], max_tokens=20)
    assert (answer.content, answer.tool_calls) == (f"{WEATHER}\n{TIME}", ())
    assert answer.finish_reason == "stop"


def test_an_answer_that_is_cut_says_so(server):
    answer = server.chat([USER], TOOLS, max_tokens=1)
    assert answer.finish_reason == "length"
    assert answer.tokens == (259,)


def test_the_prompt_has_the_tools_and_ends_where_the_model_begins(server):
    prompt = server.apply_template([USER], TOOLS)
    assert prompt.startswith("<|im_start|>system\nYou may call these functions:\n<tools>\n")
    assert '{"name": "weather", ' in prompt
    assert prompt.endswith(f"{USER['content']}<|im_end|>\n<|im_start|>assistant\n")


def test_calls_and_their_results_are_in_the_prompt(server):
    said = [
        {"id": str(number), "type": "function", "function": {"name": name, "arguments": arguments}}
        for number, (name, arguments) in enumerate([("weather", '{"city": "Paris"}'), ("time", "{}")])
    ]
    results = [{"role": "tool", "tool_call_id": str(number), "content": f"r{number}"} for number in (0, 1)]
    turn = {"role": "assistant", "content": "", "tool_calls": said}
    prompt = server.apply_template([USER, turn, *results], TOOLS)
    assert f"<|im_start|>assistant\n{WEATHER}\n{TIME}<|im_end|>\n" in prompt
    assert "<tool_response>\nr0\n</tool_response>" in prompt
    assert "<tool_response>\nr1\n</tool_response>" in prompt


def test_variables_of_the_template_reach_it(tmp_path):
    template = "{{ messages[0].content }} {{ mood }} {{ enable_thinking }}"
    file = write_scripted(tmp_path / "mood.gguf", ("answer",), template)
    with serve(file, context=256, threads=1) as server:
        prompt = server.apply_template([USER], template_kwargs={"mood": "good", "enable_thinking": False})
    assert prompt == f"{USER['content']} good False"


@pytest.mark.parametrize("text", ["", "a<|im_end|>\n", "é😀\0", WEATHER])
def test_ids_equal_those_in_this_process(server, file, text):
    with LlamaCppModel(file, context=8, threads=1) as model:
        assert server.tokenize(text) == model.tokenize(text)


def test_what_it_refuses_to_answer_is_an_answer_with_its_words(server):
    answer = server.chat([USER | {"content": "a" * 3000}], max_tokens=1)
    assert answer.finish_reason == "error"
    assert "exceeds the available context size (2048 tokens)" in answer.error
    assert (answer.raw_text, answer.tokens, answer.tool_calls) == (None, None, ())


def test_what_it_refuses_to_render_is_an_error_with_its_words(server):
    with pytest.raises(DataError, match=r"refuses /apply-template: .*must contain 'content'"):
        server.apply_template([{"role": "user"}])
    with pytest.raises(DataError, match="unknown role other"):
        server.apply_template([{"role": "other", "content": "a"}])


def test_a_file_that_it_cannot_load_is_refused_with_its_reason(tmp_path, file):
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(file.read_bytes()[:-4096])
    with pytest.raises(DataError, match=r"does not start: .*not within the file bounds"), serve(damaged):
        pass


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="No such file"), serve(tmp_path / "none.gguf"):
        pass


def test_numbers_that_are_wrong_are_refused(file):
    with pytest.raises(ValueError, match=r"context must be positive.*0 and 0"), serve(file, context=0):
        pass


def test_a_server_that_ended_is_an_error(file):
    with serve(file, context=256, threads=1) as server:
        server._process._process.kill()
        with pytest.raises(DataError, match=r"calls\.gguf: llama\.cpp's server ended with -9"):
            server.tokenize("a")
    assert refuses(server.url)


def test_it_ends_with_its_block(file):
    with serve(file, context=256, threads=1) as server:
        assert not refuses(server.url)
    assert refuses(server.url)


def test_it_ends_with_a_process_that_is_killed(file):
    code = (
        "import pathlib, sys\n"
        "from kdfast.llama_cpp import serve\n"
        "with serve(pathlib.Path(sys.argv[1]), context=256, threads=1) as server:\n"
        "    print(server.url, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        url = parent.stdout.readline().strip()
        assert not refuses(url)
        parent.kill()
    for _ in range(1200):  # the system tells the server; that takes as long as it takes
        if refuses(url):
            break
        time.sleep(0.1)
    assert refuses(url)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"[]", "no JSON object"),
        (b"<html>", "no JSON object"),
        (b"{}", "KeyError 'choices'"),
        (b'{"choices": []}', "IndexError"),
        (b'{"choices": [{"message": null, "finish_reason": "stop"}]}', "AttributeError"),
        (
            b'{"choices": [{"finish_reason": "stop", "message": {"tool_calls": [{"function": {"name": "f"}}]}}]}',
            "KeyError 'arguments'",
        ),
    ],
)
def test_another_servers_replies_are_refused(reply, message):
    with another_server(reply) as server, pytest.raises(DataError, match=f"answers otherwise.*{message}"):
        server.chat([USER], max_tokens=1)


def test_a_server_that_says_less_leaves_it_out():
    reply = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}
    with another_server(json.dumps(reply).encode()) as server:
        answer = server.chat([USER], max_tokens=1)
    assert (answer.content, answer.raw_text, answer.tokens) == ("a", None, None)


def test_an_error_without_words_has_its_status():
    with another_server(b"no", status=502) as server:
        assert server.chat([USER], max_tokens=1).error == "'no' (status 502)"
        with pytest.raises(DataError, match="refuses /tokenize"):
            server.tokenize("a")


def test_a_random_model_answers_too(tmp_path):
    source = tiny_llama()
    file = write_llama(tmp_path / "tiny.gguf", source, write_tokenizer(tmp_path), template=TEMPLATE)
    with serve(file, context=256, threads=1) as server, LlamaCppModel(file, threads=1) as model:
        answer = server.chat([USER], max_tokens=6)
        logits = model.decode(model.tokenize(server.apply_template([USER])))
        for token in answer.tokens:
            assert logits[0, token] > logits[0].max() - 0.3  # the cache's fp16 may decide a tie
            logits = model.decode([token])


def refuses(url):
    """Whether nobody listens there."""
    host, _, port = url.removeprefix("http://").partition(":")
    try:
        socket.create_connection((host, int(port))).close()
    except ConnectionRefusedError:
        return True
    return False


@contextmanager
def another_server(reply, status=200):
    """A server on loopback that gives every request the same reply."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_):
            pass

    with (
        HTTPServer(("127.0.0.1", 0), Handler) as web,
        tempfile.TemporaryFile() as log,
        subprocess.Popen([sys.executable, "-c", ""], text=True) as process,
        tempfile.NamedTemporaryFile() as file,
    ):
        threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield LlamaCppServer(
                ServerProcess(f"http://127.0.0.1:{web.server_port}", file.name, process, log)
            )
        finally:
            web.shutdown()
