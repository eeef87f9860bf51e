"""Homes: every fault with its key; those that come with kdfast."""

import copy
import re

import pytest
import yaml
from small_intents import HOME

from kdfast.errors import DataError
from kdfast.importers.smart_home.home import load_home, shipped_homes

SMALL = yaml.safe_load(HOME.read_text(encoding="utf-8"))


def changed(tmp_path, *keys, value=None, delete=False):
    content = copy.deepcopy(SMALL)
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    if delete:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    path = tmp_path / "home.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


def test_a_home_is_read():
    home = load_home("en", HOME)
    assert home.areas == ("kitchen", "living room", "garden", "office")
    assert home.devices["fan"] == ("tower fan", "air purifier")
    assert home.numbers.usual["timer"] == (1, 5, 10, 30)
    assert home.numbers.most == 1
    assert home.polite.before[0] == "please "
    assert home.answers.missing["brightness"] == "To what brightness?"
    assert home.few_words[1] == ("the", "What should I do?")


@pytest.mark.parametrize("language", ["de", "en"])
def test_the_homes_that_come_with_kdfast_can_be_read(language):
    home = load_home(language)
    assert language in shipped_homes()
    assert len(home.areas) >= 10
    assert len(home.sentences) >= 200


def test_a_language_without_a_home_is_refused_with_those_that_have_one():
    with pytest.raises(
        DataError, match=r"no home of the language 'fr' comes with kdfast \(there are: de, en\)"
    ):
        load_home("fr")


def test_a_home_of_another_language_is_refused():
    with pytest.raises(DataError, match="language: the home speaks 'en', and the templates 'de'"):
        load_home("de", HOME)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("areas",), [], "areas: is empty"),
        (("areas",), None, "areas: must be a list; got None"),
        (("areas",), ["kitchen", True], r"areas\[1\]: must be a text; put it in quotes.*True"),
        (("areas",), ["kitchen", "Kitchen "], r"areas\[1\]: there twice"),
        (("areas",), ["kitchen", " "], r"areas\[1\]: is empty"),
        (("areas",), ["a\nb"], "must be one line"),
        (("areas",), ["a\ue000b"], "characters for private use"),
        (("devices",), ["lamp"], "devices: must be a mapping"),
        (("devices", "light"), "lamp", "devices.light: must be a list"),
        (("colour",), ["red"], "colour: unknown key"),
        (("flors",), ["first"], "flors: unknown key; did you mean 'floors'"),
        (("numbers", "usual_share"), 1.5, r"numbers.usual_share: must be in \[0, 1\]"),
        (("numbers", "usual_share"), "half", "numbers.usual_share: must be a number"),
        (("numbers", "usual", "timer"), [True], r"numbers.usual.timer\[0\]: must be a number"),
        (("numbers", "most_in_a_sentence"), -1, "numbers.most_in_a_sentence: must be a whole number"),
        (("answers", "refusal"), "", "answers.refusal: is empty"),
        (
            ("answers", "refusal"),
            '<tool_call>{"name": "a", "arguments": {}}</tool_call>',
            "answers.refusal: an answer without a call",
        ),
        (
            ("out_of_domain", "sentences"),
            ["what is {x}"],
            r"out_of_domain.sentences: \[0\]: a place that .* lacks",
        ),
        (("out_of_domain", "sentences"), ["what is {s"], r"out_of_domain.sentences: \[0\]: "),
        (("few_words",), [{"say": "um"}], r"few_words\[0\]: the key 'answer' is missing"),
        (("unknown", "areas"), ["garden"], "unknown.areas: 'garden' occurs in this home"),
        (("unknown", "areas"), ["living"], r"unknown.areas: 'living' occurs in this home \('living room'\)"),
        (("unknown", "devices"), {"light": ["Tower Fan"]}, "unknown.devices.light: 'Tower Fan' occurs"),
        (("devices", 3), ["x"], "a key must be a text"),
    ],
)
def test_a_fault_is_named_with_its_key(tmp_path, keys, value, message):
    path = changed(tmp_path, *keys, value=value)
    with pytest.raises(DataError, match=message) as caught:
        load_home("en", path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("key", list(SMALL))
def test_every_key_is_required(tmp_path, key):
    path = changed(tmp_path, key, delete=True)
    with pytest.raises(DataError, match=f"the key '{key}' is missing"):
        load_home("en", path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must be a mapping of keys; got None"),
        ("areas: [a\n", r":2:1: not valid YAML"),
        ("areas: [a]\nareas: [b]\n", r":2:1: not valid YAML: the key 'areas' is given twice"),
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        ("a: \x00", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
    ],
)
def test_what_is_no_yaml_is_refused(tmp_path, content, message):
    path = tmp_path / "home.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=re.compile(message)):
        load_home("en", path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such file; copy a home"):
        load_home("en", tmp_path / "none.yaml")
