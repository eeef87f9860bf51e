"""A package in the form of home-assistant-intents with few templates; the content is ours."""

import json
import zipfile
from pathlib import Path

HOME = Path(__file__).parent / "small_home.yaml"
LANGUAGE = "en"


def slot(description, required=False):
    return {"description": description, "required": required}


def intent(description, slots=None, combinations=None):
    return {
        "supported": True,
        "description": description,
        "slots": slots or {},
        "slot_combinations": {name: {"slots": own} for name, own in (combinations or {}).items()},
    }


def block(combination, *sentences, domain=None, here=False, slots=None, response="default"):
    made = {"sentences": list(sentences), "metadata": {"slot_combination": combination}, "response": response}
    context = {"domain": [domain] if isinstance(domain, str) else domain} if domain else {}
    context |= {"area": {"slot": True}} if here else {}
    return made | ({"requires_context": context} if context else {}) | ({"slots": slots} if slots else {})


_WHERE = {"name": slot("Name"), "area": slot("Room"), "floor": slot("Floor"), "domain": slot("Domain")}
_TIMER = {"hours": slot("Hours"), "minutes": slot("Minutes"), "name": slot("Name of the timer")}


def intents():
    """`intents.json`."""
    on = {"name_only": ["name"], "area_domain": ["area", "domain"], "name_area": ["name", "area"]}
    light = {"name_brightness": ["name", "brightness"], "area_color": ["area", "color", "domain"]}
    timer = {
        "minutes_only": ["minutes"],
        "hours_minutes": ["hours", "minutes"],
        "name_minutes": ["name", "minutes"],
        "command": ["conversation_command", "minutes"],
    }
    return {
        "HassTurnOn": intent("Turns on", _WHERE, on),
        "HassTurnOff": intent("Turns off", _WHERE, on),
        "HassNevermind": intent("Does nothing"),
        "HassRespond": intent("Says something", {"response": slot("What")}),
        "HassGetState": intent(
            "Gets a state", _WHERE | {"state": slot("State")}, {"name_state": ["name", "state"]}
        ),
        "HassLightSet": intent(
            "Sets a light", _WHERE | {"brightness": slot("Percent"), "color": slot("Color")}, light
        ),
        "HassClimateSetTemperature": intent(
            "Sets the temperature", {"area": slot("Room"), "temperature": slot("Degrees", True)}
        ),
        "HassShoppingListAddItem": intent("Adds", {"item": slot("Item", True)}, {"item_only": ["item"]}),
        "HassListAddItem": intent("Adds to a list", {"item": slot("Item", True), "name": slot("List", True)}),
        "HassBroadcast": intent("Says it everywhere", {"message": slot("Message", True)}),
        "HassMediaSearchAndPlay": intent("Plays", {"area": slot("Room"), "search_query": slot("What", True)}),
        "HassSetVolumeRelative": intent(
            "Changes the volume", {"area": slot("Room"), "volume_step": slot("Step", True)}
        ),
        "HassStartTimer": intent("Starts", _TIMER | {"conversation_command": slot("Command")}, timer),
        "HassVacuumCleanArea": intent("Cleans", {"area": slot("Room", True)}),
        "HassNotHere": intent("No language has it"),
    }


def language():
    """`data/en.json`."""
    switched = {
        "HassTurnOn": [
            block(
                "name_only", "<turn> on [<the>] {name}", "<turn> [<the>] {name} on", domain=["light", "fan"]
            ),
            block("name_only", "open [<the>] {name}", domain="cover"),
            block(
                "area_domain",
                "<turn> on [<the>] {area} <light>",
                "<turn> on [<the>] <light> in [<the>] {area}",
                "[<the>] {area} <light> on",
                slots={"domain": "light"},
            ),
            block("area_domain", "<light> on [in here]", slots={"domain": "light"}, here=True),
            block("name_area", "<turn> on [<the>] {name} in [<the>] {area}", domain="light"),
            block("name_only", "mow with {name}", domain="lawn_mower"),
        ],
        "HassTurnOff": [
            block(
                "name_only", "<turn> off [<the>] {name}", "<turn> [<the>] {name} off", domain=["light", "fan"]
            ),
            block("name_only", "close [<the>] {name}", domain="cover"),
            block("area_domain", "<turn> off [<the>] {area} <light>", slots={"domain": "light"}),
        ],
    }
    return {
        "language": LANGUAGE,
        "responses": {},
        "skip_words": ["please"],
        "intents": {
            name: {"data": blocks}
            for name, blocks in {
                **switched,
                "HassNevermind": [block("default", "never[ ]mind", "forget it")],
                "HassRespond": [
                    block("default", "(hello|hi) [there]", response="hello"),
                    block("default", "where does my data go [to]", response="data"),
                ],
                "HassGetState": [
                    block("name_state", "is [<the>] {name} {on_off:state}", domain=["light", "fan"]),
                    block("name_state", "is [<the>] {name} {opened:state}", domain="cover"),
                    block("state_only", "who is at {zone:state}", slots={"domain": "person"}),
                ],
                "HassLightSet": [
                    block(
                        "name_brightness",
                        "[set] [<the>] {name} brightness to {brightness}[%| percent]",
                        "set [<the>] brightness of [<the>] {name} to {brightness}[%| percent]",
                        "set [<the>] {name} brightness to [the] {brightness_level:brightness}",
                        domain="light",
                    ),
                    block(
                        "area_color",
                        "set [<the>] {area} <light> to {color}",
                        "make [<the>] <light> ([in] [<the>] {area};{color})",
                        slots={"domain": "light"},
                    ),
                ],
                "HassClimateSetTemperature": [
                    block("area", "set [<the>] {area} temperature to {temperature}[ degrees]"),
                    block("area", "set [<the>] temperature in [<the>] {area} to {temperature}"),
                ],
                "HassShoppingListAddItem": [
                    block(
                        "item_only",
                        "add {shopping_list_item:item} to [my|the] [shopping] list",
                        "put {shopping_list_item:item} on [my|the] [shopping] list",
                    )
                ],
                "HassListAddItem": [
                    block("both", "add {todo_list_item:item} to [my|the] {name} list", domain="todo")
                ],
                "HassBroadcast": [block("message_only", "(broadcast|announce) [that] {message}")],
                "HassMediaSearchAndPlay": [
                    block("area_only", "play {search_query} in [<the>] {area}"),
                    block("default", "play {search_query}", here=True),
                ],
                "HassSetVolumeRelative": [
                    block("area", "[<the>] {area} volume {volume_step}", "turn {volume_step} [<the>] {area} volume"),
                    block("area", "[<the>] {area} volume up by {up:volume_step}"),
                    block("area", "[<the>] {area} volume down by {down:volume_step}"),
                ],
                "HassStartTimer": [
                    block(
                        "minutes_only",
                        "(set|start) [a|the] timer for {timer_minutes:minutes} minute[s]",
                        "(set|start) [a|the] {timer_minutes:minutes}( |-)minute[s] timer",
                    ),
                    block("hours_minutes", "timer for {timer_hours:hours} hours {timer_minutes:minutes} minutes"),
                    block("name_minutes", "start [a|the] {timer_name:name} timer for {timer_minutes:minutes} minutes"),
                    block("command", "{timer_command:conversation_command} in {timer_minutes:minutes} minutes"),
                ],
                "HassVacuumCleanArea": [
                    block("area_only", "(vacuum|clean) [<the>] {area}"),
                    block("here", "vacuum [in] here", here=True),
                ],
            }.items()
        },
        "lists": {
            "on_off": {"values": [{"in": "on", "out": "on"}, {"in": "off", "out": "off"}]},
            "opened": {"values": [{"in": "open", "out": "open"}, {"in": "(closed|shut)", "out": "closed"}]},
            "color": {"values": [{"in": "red", "out": "red"}, {"in": "[sky] blue", "out": "blue"}]},
            "brightness_level": {"values": [{"in": "(max|maximum)", "out": 100}, {"in": "minimum", "out": 1}]},
            "volume_step": {"values": [{"in": "(up|higher)", "out": "up"}, {"in": "down", "out": "down"}]},
            "brightness": {"range": {"type": "percentage", "from": 0, "to": 100}},
            "up": {"range": {"type": "percentage", "from": 0, "to": 100}},
            "down": {"range": {"type": "percentage", "from": 0, "to": 100, "multiplier": -1}},
            "temperature": {"range": {"type": "temperature", "from": 0, "to": 30, "fractions": "halves"}},
            "timer_minutes": {"range": {"from": 1, "to": 100}},
            "timer_hours": {"range": {"from": 1, "to": 10}},
            **{
                name: {"wildcard": True}
                for name in (
                    "message", "search_query", "zone", "timer_name", "timer_command",
                    "shopping_list_item", "todo_list_item",
                )
            },
        },
        "expansion_rules": {
            "the": "(the|my|our)",
            "light": "(light|lights|lamp[s])",
            "turn": "(turn|switch)",
        },
    }  # fmt: skip


def write_wheel(path, data=None, own_intents=None, languages=(LANGUAGE,)):
    """The package as a wheel. `data` and `own_intents` may be dicts, or texts that are written as they are."""
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in (
            ("intents.json", intents() if own_intents is None else own_intents),
            *((f"data/{one}.json", language() if data is None else data) for one in languages),
        ):
            text = content if isinstance(content, (str, bytes)) else json.dumps(content)
            wheel.writestr(f"home_assistant_intents/{name}", text)
    return path
