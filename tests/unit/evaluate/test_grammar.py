"""The grammar of answers: what it lets through is valid, and what is right in its order gets through."""

import json

import llguidance
import pytest
from tiny_models import byte_pieces, write_tokenizer

from kdfast._rust import ToolSchema, find_tool_calls
from kdfast.evaluate.grammar import answer_grammar

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city"],
}
TOOLS = [
    {"type": "function", "function": {"name": "get.weather", "parameters": CITY}},
    {"name": 'odd "näme"', "parameters": {"properties": {"unit": {"enum": ["cm", "in"]}}}},
    {"name": "bare"},
]
CALL = '<tool_call>\n{"name": "get.weather", "arguments": {"city": "Rome", "days": 2}}\n</tool_call>'


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = write_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return llguidance.LLTokenizer((folder / "tokenizer.json").read_text(), eos_token=[258])


def follows(tokenizer, text, tools=TOOLS, **options):
    """Whether an answer may be `text`, and whether it may begin with it."""
    matcher = llguidance.LLMatcher(tokenizer, answer_grammar(tools, **options), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    ids = tokenizer.tokenize_str(text)
    begins = matcher.try_consume_tokens(ids) == len(ids)
    return begins and matcher.is_accepting(), begins


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No tool can do this.",
        CALL,
        CALL.replace("\n", ""),
        CALL.replace(" ", ""),
        "I look it up. " + CALL + " Done.",
        CALL + "\n" + CALL,
        '<tool_call>{"name": "get.weather", "arguments": {"city": "東京 \\n \\"x\\" {"}}</tool_call>',
        '<tool_call>{"name": "odd \\"näme\\"", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "odd \\"näme\\"", "arguments": {"unit": "cm"}}</tool_call>',
        '<tool_call>{"name": "bare", "arguments": {"anything": [1, {"a": null}]}}</tool_call>',
        "</tool_call> {} <tool_cal",
    ],
)
def test_answers_that_may_be(tokenizer, text):
    assert follows(tokenizer, text) == (True, True)


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        (CALL.replace("get.weather", "weather"), False),
        (CALL.replace('"Rome"', "3"), False),
        (CALL.replace('"days": 2', '"days": 0'), False),
        (CALL.replace('"days"', '"surplus"'), False),
        (CALL.replace('"city": "Rome", ', ""), False),
        (CALL.replace("arguments", "parameters"), False),
        (CALL[:-1], True),  # not closed
        (CALL.replace("\n{", "\n\n\n{"), False),  # white space without end
        ('<tool_call>{"name": "odd \\"näme\\"", "arguments": {"unit": "km"}}</tool_call>', False),
    ],
)
def test_answers_that_may_not_be(tokenizer, text, begins):
    assert follows(tokenizer, text) == (False, begins)


def test_what_gets_through_is_found_and_valid(tokenizer):
    text = "a " + CALL + '<tool_call>{"name": "bare", "arguments": {}}</tool_call>'
    assert follows(tokenizer, text)[0]
    calls = find_tool_calls(text, ("hermes",))
    assert [call.name for call in calls] == ["get.weather", "bare"]
    assert ToolSchema(TOOLS[:1] + TOOLS[2:]).is_valid(calls[0])


def call_of(arguments):
    return f'<tool_call>{{"name": "f", "arguments": {json.dumps(arguments)}}}</tool_call>'


@pytest.mark.parametrize(
    ("parameters", "arguments", "may"),
    [
        ({"properties": {"a": {}}}, {"b": 1}, False),
        ({"properties": {"a": {}}, "additionalProperties": True}, {"b": 1}, True),
        ({"properties": {"a": {}}, "allOf": [{"properties": {"b": {}}}]}, {"b": 1}, True),
        ({"properties": {"a": {}}, "required": ["b"]}, {"b": 1}, True),
        ({"properties": {}}, {}, True),
        ({}, {"b": 1}, True),
        (None, {"b": 1}, True),
        (True, {"b": 1}, True),
        (
            {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "integer"}}},
            {"a": 1},
            True,
        ),
        (
            {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "integer"}}},
            {"a": "x"},
            False,
        ),
        # forms of older drafts
        ({"properties": {"a": {"required": True}}}, {}, False),
        ({"properties": {"a": {"required": True}}}, {"a": 1}, True),
        ({"properties": {"a": {"type": "number", "minimum": 3, "exclusiveMinimum": True}}}, {"a": 3}, False),
        ({"properties": {"a": {"type": "number", "minimum": 3, "exclusiveMinimum": True}}}, {"a": 4}, True),
        (
            {"properties": {"a": {"items": [{"type": "string"}], "additionalItems": False}}},
            {"a": ["x"]},
            True,
        ),
        ({"properties": {"a": {"items": [{"type": "string"}], "additionalItems": False}}}, {"a": [1]}, False),
    ],
)
def test_how_open_the_arguments_are(tokenizer, parameters, arguments, may):
    tools = [{"name": "f", "parameters": parameters}]
    assert follows(tokenizer, call_of(arguments), tools)[0] is may


@pytest.mark.parametrize(
    "special", [True, False]
)  # added tokens in angle brackets are special to llguidance anyhow
def test_tags_that_are_special_tokens(tmp_path, special):
    extra = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>")
    document = json.loads((write_tokenizer(tmp_path, extra) / "tokenizer.json").read_text())
    for token in document["added_tokens"][3:]:
        token["special"] = special
    tokenizer = llguidance.LLTokenizer(json.dumps(document), eos_token=[258])
    assert tokenizer.is_special_token(259)
    matcher = llguidance.LLMatcher(tokenizer, answer_grammar(TOOLS, special=True), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    ids = tokenizer.tokenize_str(CALL + " and " + CALL, parse_special=True)
    assert ids.count(259) == ids.count(260) == 2
    assert matcher.try_consume_tokens(ids) == len(ids)
    assert matcher.is_accepting()
    wrong = tokenizer.tokenize_str(CALL.replace("get.", "got."), parse_special=True)
    matcher.reset()
    assert matcher.try_consume_tokens(wrong) < len(wrong)


def test_older_forms_keep_the_order_of_the_arguments(tokenizer):
    parameters = {"properties": {"b": {"required": True}, "a": {"required": True}}}
    tools = [{"name": "f", "parameters": parameters}]
    assert follows(tokenizer, call_of({"b": 1, "a": 2}), tools)[0]
    assert not follows(tokenizer, call_of({"a": 2, "b": 1}), tools)[0]


def test_no_tools():
    with pytest.raises(ValueError, match="at least one definition"):
        answer_grammar([])
    assert len(byte_pieces()) == 256


WRITTEN = {
    "hermes": "<tool_call>{}</tool_call>",
    "mistral": "[TOOL_CALLS] [{}]",
    "llama3": "<|python_tag|>{}",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_every_format_with_an_opening_mark(tokenizer, name):
    key = "parameters" if name == "llama3" else "arguments"
    right = json.dumps({"name": "get.weather", key: {"city": "Rome", "days": 2}})
    text = "I look. " + WRITTEN[name].replace("{}", right)
    assert follows(tokenizer, text, tool_call_format=name) == (True, True)
    (call,) = find_tool_calls(text, [name])
    assert ToolSchema(TOOLS).is_valid(call)
    for wrong in (
        text.replace('"Rome"', "3"),
        text.replace("get.weather", "weather"),
        text.replace(key, "given"),
    ):
        assert follows(tokenizer, wrong, tool_call_format=name) == (False, False)
    assert follows(tokenizer, "No tool.", tool_call_format=name) == (True, True)


def test_a_list_of_calls(tokenizer):
    call = '{"name": "bare", "arguments": {}}'
    two = f"[TOOL_CALLS] [{call}, {call}]"
    assert follows(tokenizer, two, tool_call_format="mistral") == (True, True)
    assert len(find_tool_calls(two, ["mistral"])) == 2
    assert follows(tokenizer, "[TOOL_CALLS] []", tool_call_format="mistral") == (False, False)
