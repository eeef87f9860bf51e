"""Tools: the schemas say what the lists may put into each slot."""

import pytest
from small_import import parts
from small_intents import write_wheel

from kdfast import ToolSchema
from kdfast.importers.smart_home.tools import tools


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    own = parts(write_wheel(tmp_path_factory.mktemp("wheel") / "w.whl"))
    return tools(own.package, own.templates.calls, own.home)


def properties(made, name):
    return made[name]["function"]["parameters"]["properties"]


def test_a_tool_for_every_intent_that_acts_and_has_templates(made):
    assert list(made)[:3] == ["HassTurnOn", "HassTurnOff", "HassGetState"]
    assert not {"HassNevermind", "HassRespond", "HassNotHere"} & set(made)
    assert made["HassBroadcast"] == {
        "type": "function",
        "function": {
            "name": "HassBroadcast",
            "description": "Says it everywhere",
            "parameters": {
                "type": "object",
                "properties": {"message": {"type": "string", "description": "Message"}},
                "required": ["message"],
                "additionalProperties": False,
            },
        },
    }
    assert ToolSchema(list(made.values())).names == list(made)


def test_a_property_is_there_if_a_template_may_fill_it(made):
    assert list(properties(made, "HassTurnOn")) == ["name", "area", "domain"]
    assert list(properties(made, "HassStartTimer")) == ["minutes", "name", "conversation_command"]


def test_closed_lists_are_enums(made):
    assert properties(made, "HassTurnOn")["area"]["enum"] == ["kitchen", "living room", "garden", "office"]
    assert properties(made, "HassTurnOn")["domain"]["enum"] == ["light"]
    assert properties(made, "HassLightSet")["color"]["enum"] == ["red", "blue"]
    state = ["on", "off", "open", "closed", "work", "school"]
    assert properties(made, "HassGetState")["state"]["enum"] == state
    assert "enum" not in properties(made, "HassTurnOn")["name"]
    assert "enum" not in properties(made, "HassShoppingListAddItem")["item"]


def test_numbers_have_bounds(made):
    assert properties(made, "HassLightSet")["brightness"] == {
        "type": "integer",
        "minimum": 0,
        "maximum": 100,
        "description": "Percent",
    }
    degrees = properties(made, "HassClimateSetTemperature")["temperature"]
    assert (degrees["type"], degrees["minimum"], degrees["maximum"]) == ("number", 0, 30)


def test_texts_and_numbers_in_one_slot(made):
    assert properties(made, "HassSetVolumeRelative")["volume_step"]["anyOf"] == [
        {"type": "string", "enum": ["up", "down"]},
        {"type": "integer", "minimum": -100, "maximum": 100},
    ]
