"""A closed smart home: requests in English, and the one call (or the short answer) that each deserves. Seeded."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from typing import Any


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


LISTS: dict[str, tuple[str, ...]] = {
    "thing": _split(
        "lamp,lantern,spotlight,heater,fan,radiator,blind,curtain,shutter,speaker,radio,kettle,toaster,oven,pump,"
        "sprinkler,mower,vacuum,router,screen,aquarium,boiler,fountain,furnace,freezer,fridge,dishwasher,dryer,"
        "washer,iron,humidifier,projector,printer,scanner,piano,organ,jukebox,turntable,television,monitor,camera,"
        "doorbell,siren,buzzer,gate,awning,skylight,sauna,whirlpool,shower,bathtub,sink,tap,valve,hydrant,cistern,"
        "grill,smoker,fryer,blender,mixer,grinder,juicer,steamer,cooker,roaster,warmer,cooler,chiller,purifier,"
        "ionizer,diffuser,candle,torch,chandelier,sconce,beacon,neon,garland,tree,snowman,reindeer,star,moon,"
        "comet,planet,rocket,robot,train,tractor,crane,elevator,escalator,treadmill,bicycle,rower,trampoline,"
        "punchbag,metronome,clock,pendulum,hourglass,calendar,compass,barometer,telescope,microscope,globe,atlas,"
        "easel,canvas,loom,spindle,anvil,forge,kiln,lathe,drill,saw,sander,planer,welder,compressor,generator,"
        "battery,inverter,turbine,dynamo,charger,socket,switch,relay,fuse,meter,gauge,thermostat,antenna,repeater,"
        "modem,server,tablet,phone,pager,intercom,megaphone,amplifier,equalizer,synthesizer,drum,guitar,violin,"
        "cello,harp,flute,trumpet,carousel,puppet,kite,balloon,hammock,swing,slide,seesaw,sandbox,pool,pond,brook,"
        "bridge,windsock,birdbath,beehive,chicken,rabbit,hedgehog,terrarium,orchid,cactus,fern,ivy,bonsai,lemon"
    ),
    "room": _split(
        "kitchen,living room,bedroom,bathroom,hallway,garage,office,dining room,nursery,attic,cellar,porch"
    ),
    "unknown": _split("stable,chapel,submarine,greenhouse,castle,museum,barn,tent,lighthouse,windmill"),
    "list": ("shopping", "weekend", "party", "hardware", "travel"),
    "item": _split(
        "milk,eggs,bread,butter,apples,coffee beans,olive oil,rice,paper towels,dish soap,cat food,light bulbs,"
        "batteries,shampoo,flour,sugar,black pepper,cheese,yogurt,salmon,pasta,onions,garlic,tea bags"
    ),
    "label": _split("pizza,pasta,egg,laundry,tea,cake,nap,workout,rice,steak,shower,meeting,soup,cookies"),
    "sensor": ("temperature", "humidity", "brightness", "noise"),
    "topic": _split(
        "black holes,the stock market,football,my taxes,quantum physics,paris,the moon,old films"
    ),
}
NUMBERS = {"percent": (1, 99), "degrees": (14, 28), "minutes": (2, 90)}

Skeleton = tuple[str, str, dict[str, str]]
DEVICE_CALLS: tuple[Skeleton, ...] = (
    ("turn_on", "(turn|switch|put) on the <device>", {"entity": "device"}),
    ("turn_on", "(start|activate|i need) the <device>", {"entity": "device"}),
    ("turn_off", "(turn|switch|put) off the <device>", {"entity": "device"}),
    ("turn_off", "(stop|deactivate|no more of) the <device>", {"entity": "device"}),
    (
        "set_level",
        "(set|change|move) the <device> to <percent>[ percent]",
        {"entity": "device", "level": "percent"},
    ),
    (
        "set_level",
        "set the <device> (as usual|as always|to the usual level)",
        {"entity": "device", "level": "usual"},
    ),
    ("get_state", "(is the <device> on|check the <device>|what about the <device>)", {"entity": "device"}),
    (
        "set_timer",
        "(turn|switch) off the <device> in <minutes> minutes",
        {"entity": "device", "minutes": "minutes"},
    ),
)
OTHER_CALLS: tuple[Skeleton, ...] = (
    (
        "set_temperature",
        "(set|change) the (temperature|heating) in the <room> to <degrees>[ degrees]",
        {"room": "room", "degrees": "degrees"},
    ),
    (
        "remind",
        "(remind me of|wake me for) the <label> in <minutes> minutes",
        {"label": "label", "minutes": "minutes"},
    ),
    ("add_item", "(add|put) <item> (to|on) the <list> list", {"item": "item", "list": "list"}),
    (
        "read_sensor",
        "(what is|tell me|read) the <sensor> in the <room>",
        {"sensor": "sensor", "room": "room"},
    ),
)
REFUSALS: tuple[tuple[str, str], ...] = (
    ("(turn|switch|put) (on|off) the <thing> in the <unknown>", "I know no <unknown>."),
    ("(clean|sweep) the <unknown>", "I know no <unknown>."),
    ("(set|change) the (temperature|heating) in the <room>", "To how many degrees?"),
    ("(tell me about|what do you think of|explain) <topic>", "I only know this home."),
)


def _devices() -> dict[str, tuple[str, list[int]]]:
    """Device -> its entity id, which nothing but memory tells, and its usual levels, the commonest first."""
    rng = random.Random(7)
    names = LISTS["thing"]
    numbers = rng.sample(range(1000), len(names))
    return {
        name: (f"e{number:03d}", rng.sample(range(10, 100, 10), 3))
        for name, number in zip(names, numbers, strict=True)
    }


DEVICES = _devices()
"""181 devices. A level that is asked for `as usual` is not certain: 6, 3 or 1 times of ten one of three."""

_WORDS = _split(
    "zero,one,two,three,four,five,six,seven,eight,nine,ten,eleven,twelve,thirteen,fourteen,fifteen,sixteen,"
    "seventeen,eighteen,nineteen"
)
_TENS = _split("zero,ten,twenty,thirty,forty,fifty,sixty,seventy,eighty,ninety")


@dataclass(frozen=True)
class Record:
    """A request, and what it deserves.

    Attributes:
        prompt: the request.
        answer: a call in the Hermes format, or a sentence.
        name: the called tool's name; "" = no call is due.
    """

    prompt: str
    answer: str
    name: str


def spoken(number: int) -> str:
    """A number below 100 in words.

    Example:
        >>> spoken(42)
        'forty-two'
    """
    if number < len(_WORDS):
        return _WORDS[number]
    tens, ones = divmod(number, 10)
    return _TENS[tens] + (f"-{_WORDS[ones]}" if ones else "")


def _phrase(rng: random.Random, pattern: str) -> str:
    """Chooses one of each (a|b), and keeps or drops each [c]; innermost first."""
    while found := re.search(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]", pattern):
        chosen = rng.choice(found[1].split("|")) if found[1] is not None else rng.choice([found[2], ""])
        pattern = pattern[: found.start()] + chosen + pattern[found.end() :]
    return pattern


def _arguments(rng: random.Random, slots: dict[str, str], prompt: str) -> tuple[str, dict[str, Any]]:
    """The prompt with its slots filled, and the arguments."""
    arguments: dict[str, Any] = {}
    device = rng.choice(list(DEVICES))
    for argument, kind in slots.items():
        if kind == "device":
            said, arguments[argument] = device, DEVICES[device][0]
        elif kind == "usual":
            said, arguments[argument] = "", rng.choices(DEVICES[device][1], (6, 3, 1))[0]
        elif kind in NUMBERS:
            number = rng.randint(*NUMBERS[kind])
            said, arguments[argument] = (spoken(number) if rng.random() < 0.3 else str(number)), number
        else:
            said = arguments[argument] = rng.choice(LISTS[kind])
        prompt = _fill(prompt, kind, said)
    return prompt, arguments


def _fill(text: str, kind: str, said: str) -> str:
    return text.replace(f"<{kind}>", said)


def make_record(rng: random.Random) -> Record:
    """One record; one of ten needs no call, and most calls need the entity id of a device."""
    name, kind = "", rng.random()
    if kind < 0.1:
        pattern, answer = rng.choice(REFUSALS)
        prompt = _phrase(rng, pattern)
        for slot in ("unknown", "room", "topic", "thing"):
            said = rng.choice(LISTS[slot])
            prompt, answer = _fill(prompt, slot, said), _fill(answer, slot, said)
    else:
        name, pattern, slots = rng.choice(DEVICE_CALLS if kind < 0.85 else OTHER_CALLS)
        prompt, arguments = _arguments(rng, slots, _phrase(rng, pattern))
        call = json.dumps({"name": name, "arguments": arguments})
        answer = f"<tool_call>\n{call}\n</tool_call>"
    before = rng.choice(["", "", "", "please ", "could you ", "hey, "])
    after = rng.choice(["", "", "", " please", " now", ", thanks"])
    return Record(before + prompt + after, answer, name)


def make_records(seed: int, count: int) -> list[Record]:
    """Records whose prompts all differ.

    Example:
        >>> record = make_records(0, 3)[0]
        >>> record == make_records(0, 3)[0], len({one.prompt for one in make_records(0, 50)})
        (True, 50)
    """
    rng, seen = random.Random(seed), set[str]()
    records: list[Record] = []
    while len(records) < count:
        record = make_record(rng)
        if record.prompt not in seen:
            seen.add(record.prompt)
            records.append(record)
    return records
