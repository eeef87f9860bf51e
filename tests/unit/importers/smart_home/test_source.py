"""Reading the package: a wheel, a folder, and everything that is neither."""

import json
import zipfile

import pytest
from small_intents import intents, language, write_wheel

from kdfast.errors import DataError
from kdfast.importers.smart_home.source import read_package


def test_a_wheel_and_the_folder_that_it_was_unpacked_into_say_the_same(tmp_path):
    wheel = write_wheel(tmp_path / "w.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    package = read_package(wheel, "en")
    assert package == read_package(tmp_path / "unpacked", "en")
    assert package == read_package(tmp_path / "unpacked" / "home_assistant_intents", "en")
    assert package.blocks["HassTurnOn"][0]["sentences"][0] == "<turn> on [<the>] {name}"
    assert package.rules["turn"] == "(turn|switch)"
    assert package.lists["timer_minutes"] == {"range": {"from": 1, "to": 100}}


def test_a_language_that_is_not_there_is_named_with_those_that_are(tmp_path):
    wheel = write_wheel(tmp_path / "w.whl", languages=("de", "en", "pt-BR"))
    with pytest.raises(DataError, match="no language 'fr'; it has: de, en, pt-BR"):
        read_package(wheel, "fr")


def _other_package(path):
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("bfcl_eval/data/BFCL_v4_irrelevance.json", "{}")
    return path


def _truncated(path):
    content = write_wheel(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def _damaged(path):
    content = bytearray(write_wheel(path).read_bytes())
    content[200:220] = b"\x00" * 20
    path.write_bytes(content)
    return path


def _without(key):
    def change(data):
        del data[key]

    return change


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "no such file or directory; give the wheel of home-assistant-intents"),
        (_other_package, "no home_assistant_intents/data inside; give the wheel"),
        (_truncated, "not a whole wheel"),
        (_damaged, "not a whole wheel"),
        (lambda path: write_wheel(path, data="not json"), "not JSON"),
        (lambda path: write_wheel(path, data=b"\xff\xfe"), "not UTF-8 at byte 0"),
        (lambda path: write_wheel(path, data="[]"), "must be a JSON object"),
        (lambda path: write_wheel(path, own_intents="{}"), "intents.json does not know the intent"),
    ],
)
def test_what_is_no_package_is_refused(tmp_path, make, message):
    with pytest.raises(DataError, match=message) as caught:
        read_package(make(tmp_path / "w.whl"), "en")
    assert str(tmp_path) in str(caught.value)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no home_assistant_intents/data inside"):
        read_package(tmp_path, "en")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("lists"), "another form .*'lists'"),
        (lambda data: data.pop("expansion_rules"), "another form .*'expansion_rules'"),
        (lambda data: data.update(intents=None), "another form"),
        (lambda data: data["intents"]["HassTurnOn"]["data"][0].pop("metadata"), "another form .*'metadata'"),
        (
            lambda data: data["intents"]["HassTurnOn"]["data"][0].pop("sentences"),
            "another form .*'sentences'",
        ),
        (
            lambda data: data["intents"]["HassTurnOn"]["data"][0].update(excludes_context={"domain": "x"}),
            "HassTurnOn: templates of another form .*excludes_context",
        ),
        (
            lambda data: data["intents"]["HassTurnOn"]["data"][0]["requires_context"].update(device="tv"),
            "HassTurnOn: templates of another form .*device",
        ),
        (
            lambda data: data["intents"]["HassTurnOn"]["data"][0]["requires_context"].update(
                area={"slot": False}
            ),
            "requires_context.area",
        ),
    ],
)
def test_another_version_is_refused_with_what_is_different(tmp_path, change, message):
    data = language()
    change(data)
    with pytest.raises(DataError, match=message):
        read_package(write_wheel(tmp_path / "w.whl", data=data), "en")


def test_an_intent_without_a_description_is_refused(tmp_path):
    own = intents()
    del own["HassTurnOn"]["description"]
    with pytest.raises(DataError, match=r"another form .*'description'"):
        read_package(write_wheel(tmp_path / "w.whl", own_intents=json.dumps(own)), "en")
