"""How to serve an export so that it is prompted as it was trained: commands, a Modelfile, snippets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

VLLM_PARSERS = {
    "hermes": "hermes",
    "granite": "granite4",
    "mistral": "mistral",
    "llama3": "llama3_json",
    "object": "llama3_json",
}
"""kdfast's format of calls -> vLLM's `--tool-call-parser`. For the other formats vLLM has none that is known to fit."""

_OLLAMA = (
    "Ollama does not run this model's chat template. Its own templates are written in another language (Go), and one",
    "is chosen by likeness when a GGUF file is imported. The prompt would be another one than in training, tools and",
    "calls first of all. So the Modelfile's TEMPLATE passes a prompt on as it is: render it by chat_template.jinja",
    '(with messages and tools) and send it to /api/generate with "raw": true. Do not use /api/chat,',
    "/v1/chat/completions or `ollama run`.",
)


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What a server must be told.

    Attributes:
        target: the export's target.
        file: the GGUF file's name; "" for the target `hf`.
        call_format: the format in which the template writes calls; None = in none that kdfast reads.
        context: the most tokens that the model reads (`max_position_embeddings`); None = its files do not say.
        stops: the texts of the tokens that end an answer.
        grammar: the file name of the tool set's grammar; "" = there is none.
        hides_tools: the chat template shows no tools: they are baked into the student, and none are sent.
    """

    target: Literal["gguf", "hf"]
    file: str
    call_format: str | None
    context: int | None
    stops: tuple[str, ...]
    grammar: str = ""
    hides_tools: bool = False


def modelfile(serving: Serving) -> str:
    r"""An Ollama Modelfile, with the warning that Ollama's own templates break parity.

    Example:
        >>> made = modelfile(
        ...     Serving(target="gguf", file="s.gguf", call_format="hermes", context=4096, stops=("<|im_end|>",))
        ... )
        >>> print("\n".join(line for line in made.splitlines() if not line.startswith("#")))
        FROM ./s.gguf
        TEMPLATE {{ .Prompt }}
        PARAMETER num_ctx 4096
        PARAMETER temperature 0
        PARAMETER stop "<|im_end|>"
    """
    lines = [f"# {line}" for line in _OLLAMA]
    lines += [f"FROM ./{serving.file}", "TEMPLATE {{ .Prompt }}"]
    lines += [f"PARAMETER num_ctx {serving.context}"] if serving.context is not None else []
    lines += ["PARAMETER temperature 0", *(_stop(stop) for stop in dict.fromkeys(serving.stops) if stop)]
    return "\n".join([*lines, ""])


def serving_text(serving: Serving) -> str:
    """The card's section on how to serve the export, as Markdown without its heading."""
    parts = _gguf_parts(serving) if serving.target == "gguf" else _hf_parts(serving)
    return "\n\n".join(parts)


def _gguf_parts(serving: Serving) -> list[str]:
    parts = [
        "**llama-server** (llama.cpp) renders the chat template that is in the file; `--jinja` lets it:",
        _code("bash", f"llama-server -m {serving.file} --jinja{_context(serving, '-c')} --temp 0"),
        _TEXT_ONLY if serving.hides_tools else _WITH_TOOLS,
    ]
    if serving.call_format is None or serving.hides_tools:
        parts.append(_own_reading(serving))
    if serving.grammar:
        parts += [
            f"`{serving.grammar}` is a grammar of the tool set: with it every call is whole and fits its schema. "
            "llama-server refuses a grammar beside `tools`, so let it render the prompt first. Its text leaves special "
            "tokens out, and the mark of a call may be one, so decode the ids:",
            _code("python", _GRAMMAR.format(grammar=serving.grammar, tools=_sent(serving))),
        ]
    warning = " ".join(_OLLAMA)
    return [
        *parts,
        f"**Ollama**: `ollama create NAME -f Modelfile`, but mind this. {warning}",
    ]


def _sent(serving: Serving) -> str:
    return "" if serving.hides_tools else ', "tools": tools'


def _hf_parts(serving: Serving) -> list[str]:
    return [
        "**vLLM** (DIR is this folder):",
        *_vllm(serving),
        "**transformers**:",
        _code("python", _TRANSFORMERS.replace(", tools=tools", "") if serving.hides_tools else _TRANSFORMERS),
    ]


def _vllm(serving: Serving) -> list[str]:
    command = f"vllm serve DIR{_context(serving, '--max-model-len')}"
    if serving.hides_tools:
        return [
            _code("bash", command),
            f"Send no `tools`: this student knows its own. {_own_reading(serving)}",
        ]
    parser = VLLM_PARSERS.get(serving.call_format or "")
    if parser is None:
        return [_code("bash", command), f"vLLM has no parser for this format. {_own_reading(serving)}"]
    parts = [_code("bash", f"{command} --enable-auto-tool-choice --tool-call-parser {parser}")]
    if parser == "mistral":
        parts.append(
            "This parser needs `[TOOL_CALLS]` as one token of the tokenizer; without it vLLM does not start."
        )
    return [*parts, "vLLM was not run by the export: its parser was not compared with kdfast's."]


def _context(serving: Serving, option: str) -> str:
    """The option that names the context, with a blank before it; without a known one the server's own rule holds."""
    return "" if serving.context is None else f" {option} {serving.context}"


def _own_reading(serving: Serving) -> str:
    if serving.call_format is None:
        return "The template writes calls in no format that kdfast reads, so no parser can be named."
    return (
        f"Calls are written in kdfast's format `{serving.call_format}`: take the text of an answer and read its calls"
        f' by `kdfast.find_tool_calls(text, formats=["{serving.call_format}"])`.'
    )


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text.strip()}\n```"


def _stop(text: str) -> str:
    """The line of an end token. A Modelfile knows no escapes; the GGUF file names the token in any case."""
    if '"' in text or "\n" in text:
        return f"# A Modelfile cannot hold this end token: {json.dumps(text)}"
    return f'PARAMETER stop "{text}"'


_WITH_TOOLS = (
    "Send `messages` and `tools` (in OpenAI's form) to `/v1/chat/completions`, with `temperature` 0. Whether its"
    " parser finds the calls that kdfast finds is the check `calls` under Parity."
)

_TEXT_ONLY = (
    "Send `messages` to `/v1/chat/completions`, with `temperature` 0, and **no `tools`**: this student knows its tools"
    " by heart, and some versions of llama-server describe tools that they are sent in words of their own, which the"
    " student never saw."
)

_GRAMMAR = """
import json, pathlib, urllib.request
from tokenizers import Tokenizer


def post(path, body):
    request = urllib.request.Request("http://127.0.0.1:8080" + path, json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    return json.load(urllib.request.urlopen(request))


prompt = post("/apply-template", {{"messages": messages{tools}}})["prompt"]
grammar = pathlib.Path("{grammar}").read_text()
options = {{"grammar": grammar, "temperature": 0, "n_predict": 256, "return_tokens": True}}
reply = post("/completion", {{"prompt": prompt, **options}})
ids = reply["tokens"][:-1] if reply["stop_type"] == "eos" else reply["tokens"]
answer = Tokenizer.from_file("tokenizer.json").decode(ids, skip_special_tokens=False)
"""

_TRANSFORMERS = """
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("DIR")
model = AutoModelForCausalLM.from_pretrained("DIR")
inputs = tokenizer.apply_chat_template(
    messages, tools=tools, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
output = model.generate(**inputs, do_sample=False, max_new_tokens=256)
ids = output[0, inputs["input_ids"].shape[1] :].tolist()
ends = model.generation_config.eos_token_id
if ids[-1] in (ends if isinstance(ends, list) else [ends]):
    ids.pop()
answer = tokenizer.decode(ids, skip_special_tokens=False)
"""
