"""How to serve an export: commands, parsers, the Modelfile and its warning, snippets that run."""

import json
import re
import runpy

import pytest
import torch
from tiny_models import TEMPLATE, TURN_END, byte_pieces, tiny_llama, write_model, write_tokenizer

from kdfast._rust import tool_call_formats
from kdfast.export.serving import VLLM_PARSERS, Serving, modelfile, serving_text

MARK, MARK_ID = "<|im_start|>", 257  # a special token


def serving(**changes):
    whole = {"target": "gguf", "file": "student-q4_0.gguf", "call_format": "hermes", "context": 8192}
    return Serving(**whole | {"stops": ("<|im_end|>",)} | changes)


def test_llama_server_renders_the_template_of_the_file():
    text = serving_text(serving())
    assert "llama-server -m student-q4_0.gguf --jinja -c 8192 --temp 0" in text
    assert "tools.gbnf" not in text


def test_ollama_is_warned_about_in_the_card_and_in_the_modelfile():
    for text in (serving_text(serving()), modelfile(serving())):
        assert "Ollama does not run this model's chat template" in text
        assert '"raw": true' in text
        assert "Do not use /api/chat" in text


def test_a_modelfile_holds_every_end_token_once():
    text = modelfile(serving(stops=("<|im_end|>", 'odd "end"', "", "<|im_end|>", "</s>")))
    lines = text.splitlines()
    assert lines[lines.index("FROM ./student-q4_0.gguf") :] == [
        "FROM ./student-q4_0.gguf",
        "TEMPLATE {{ .Prompt }}",
        "PARAMETER num_ctx 8192",
        "PARAMETER temperature 0",
        'PARAMETER stop "<|im_end|>"',
        '# A Modelfile cannot hold this end token: "odd \\"end\\""',
        'PARAMETER stop "</s>"',
    ]


@pytest.mark.parametrize("name", tool_call_formats())
def test_vllm_gets_a_parser_or_is_said_to_have_none(name):
    text = serving_text(serving(target="hf", file="", call_format=name))
    if name in VLLM_PARSERS:
        assert f"--enable-auto-tool-choice --tool-call-parser {VLLM_PARSERS[name]}\n" in text
    else:
        assert "--tool-call-parser" not in text
        assert "vLLM has no parser for this format" in text
        assert f'formats=["{name}"]' in text


def test_every_parser_is_for_a_format_that_kdfast_reads():
    assert VLLM_PARSERS.keys() <= set(tool_call_formats())


@pytest.mark.parametrize("target", ["gguf", "hf"])
def test_a_template_without_calls_is_said(target):
    text = serving_text(serving(target=target, call_format=None))
    assert "writes calls in no format that kdfast reads" in text


def test_the_needed_token_of_mistral_is_said():
    assert "needs `[TOOL_CALLS]` as one token" in serving_text(serving(target="hf", call_format="mistral"))


def python_of(text):
    (code,) = re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)
    return code


def test_the_snippet_for_transformers_answers(tmp_path, monkeypatch):
    directory = write_model(tmp_path / "DIR", layers=1)
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": TURN_END, "pad_token": TURN_END}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    monkeypatch.chdir(tmp_path)
    names = {"messages": [{"role": "user", "content": "Hi"}], "tools": [{"name": "f"}]}
    code = python_of(serving_text(serving(target="hf")))
    (tmp_path / "snippet.py").write_text(code.replace("max_new_tokens=256", "max_new_tokens=3"))
    names = runpy.run_path("snippet.py", init_globals=names)
    assert isinstance(names["answer"], str)
    prompt = names["tokenizer"].decode(names["inputs"]["input_ids"][0])
    assert prompt.startswith("<tools>")
    assert prompt.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize(("most", "written"), [(256, MARK + "ab"), (2, MARK + "a")])
def test_the_snippet_for_transformers_keeps_the_mark_of_a_call(tmp_path, monkeypatch, most, written):
    """Answers that end with an end token, and answers that are cut."""
    directory = write_tokenizer(tmp_path / "DIR")
    model = tiny_llama(layers=1)
    line_feed, *said = [byte_pieces().index(sign) for sign in "Ċab"]
    answer = [line_feed, MARK_ID, *said, 258]
    with torch.no_grad():
        layer, embedding = model.model.layers[0], model.model.embed_tokens.weight
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()  # the last state is the last token's embedding
        embedding.div_(embedding.norm(dim=1, keepdim=True))
        model.lm_head.weight.zero_()
        model.lm_head.weight[answer[1:]] = 10 * embedding[answer[:-1]]
    model.generation_config.eos_token_id = [256, 258]
    model.save_pretrained(directory)
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": TURN_END, "pad_token": TURN_END}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    monkeypatch.chdir(tmp_path)
    code = python_of(serving_text(serving(target="hf")))
    (tmp_path / "snippet.py").write_text(code.replace("max_new_tokens=256", f"max_new_tokens={most}"))
    names = {"messages": [{"role": "user", "content": "Hi"}], "tools": [{"name": "f"}]}
    assert runpy.run_path("snippet.py", init_globals=names)["answer"] == written


def test_the_snippet_for_a_grammar_is_valid_python():
    code = python_of(serving_text(serving(grammar="tools.gbnf")))
    compile(code, "snippet", "exec")
    assert 'pathlib.Path("tools.gbnf")' in code
    assert "{{" not in code


@pytest.mark.slow
def test_the_snippet_for_a_grammar_keeps_the_mark_of_a_call(tmp_path, monkeypatch):
    pytest.importorskip("xllamacpp")
    from gguf import GGUFReader, TokenType
    from tiny_gguf import write_scripted

    from kdfast.export.gbnf import tool_grammar
    from kdfast.llama_cpp import serve

    pieces = ("[TOOL_CALLS]", '[{"name": "f", "arguments": ', "{}}]")
    file = write_scripted(tmp_path / "x.gguf", pieces, TEMPLATE)
    # The mark becomes a special token, in both files.
    types = GGUFReader(file, "r+").fields["tokenizer.ggml.token_type"]
    types.parts[types.data[259]][0] = TokenType.CONTROL
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    next(one for one in document["added_tokens"] if one["id"] == 259)["special"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    names = {"messages": [{"role": "user", "content": "Hi"}], "tools": tools}
    (tmp_path / "tools.gbnf").write_text(tool_grammar(names["tools"], "mistral"))
    monkeypatch.chdir(tmp_path)
    code = python_of(serving_text(serving(grammar="tools.gbnf", call_format="mistral")))
    with serve(file, context=512, threads=1) as server:
        code = code.replace("http://127.0.0.1:8080", server.url)
        for most, written in ((256, "".join(pieces)), (2, "".join(pieces[:2]))):
            (tmp_path / "snippet.py").write_text(code.replace('"n_predict": 256', f'"n_predict": {most}'))
            found = runpy.run_path("snippet.py", init_globals=names)
            assert found["answer"] == written
            assert pieces[0] not in found["reply"]["content"]  # else the ids would not be needed


@pytest.mark.parametrize("target", ["gguf", "hf"])
def test_no_tools_are_sent_where_they_are_baked_in(target):
    text = serving_text(
        serving(target=target, hides_tools=True, grammar="tools.gbnf" if target == "gguf" else "")
    )
    assert '"tools": tools' not in text
    assert "tools=tools" not in text
    assert "Send `messages` and `tools`" not in text
    assert "tool-call-parser" not in text
    assert "enable-auto-tool-choice" not in text
    # A client reads the calls in the text.
    assert 'formats=["hermes"]' in text
    assert ("**no `tools`**" in text) == (target == "gguf")
    assert ("Send no `tools`" in text) == (target == "hf")
    shown = serving_text(serving(target=target, grammar="tools.gbnf" if target == "gguf" else ""))
    assert "no `tools`" not in shown


def test_the_snippets_of_a_student_with_baked_in_tools_are_valid_python():
    grammar = python_of(serving_text(serving(grammar="tools.gbnf", hides_tools=True)))
    compile(grammar, "snippet", "exec")
    assert 'post("/apply-template", {"messages": messages})' in grammar
    answer = python_of(serving_text(serving(target="hf", file="", hides_tools=True)))
    compile(answer, "snippet", "exec")
    assert "apply_chat_template" in answer


@pytest.mark.parametrize("target", ["gguf", "hf"])
def test_a_context_that_is_not_known_is_not_named(target):
    text = serving_text(serving(target=target, context=None))
    assert "None" not in text
    assert ("-m student-q4_0.gguf --jinja --temp 0" in text) == (target == "gguf")
    assert ("vllm serve DIR --enable-auto-tool-choice" in text) == (target == "hf")
    assert "num_ctx" not in modelfile(serving(context=None))
