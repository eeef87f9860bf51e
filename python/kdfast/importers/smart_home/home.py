"""One home: what it is made of, what it does not have, and what is said where no tool is called."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

from kdfast._rust import find_tool_calls
from kdfast.errors import DataError
from kdfast.importers.smart_home.home_file import Node, read_yaml
from kdfast.importers.smart_home.sentences import fold

_HOMES = Path(__file__).parent / "homes"
_FILLED_BY_HOME = ("area", "light")


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """How numbers are said.

    Attributes:
        usual: what people usually say, by the name of a list or a family of lists.
        usual_share: the share of numbers drawn from `usual`; the others come from the list's whole range.
        in_words_share: the share of numbers that are said in words.
        most: sentences with more numbers are not made.
    """

    usual: dict[str, tuple[float, ...]]
    usual_share: float
    in_words_share: float
    most: int


@dataclass(frozen=True, kw_only=True)
class Polite:
    """Words that people put around a command, and how often; `before_verbs` only before one that begins with a verb."""

    before: tuple[str, ...]
    before_verbs: tuple[str, ...]
    verbs: frozenset[str]
    after: tuple[str, ...]
    before_share: float
    after_share: float


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What is said where no tool is called; `missing` by slot, `responses` by the package's name of the response."""

    refusal: str
    unknown_device: str
    unknown_area: str
    nevermind: str
    missing: dict[str, str]
    responses: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Home:
    """A home, as its YAML file says it.

    Attributes:
        file: the file's name, for messages.
        language: the language of all its texts, as the package names it.
        areas: the rooms.
        floors: the floors.
        devices: the names by Home Assistant's domain.
        values: what fills the slots that take any text, by the package's name of the list.
        unknown_areas: rooms that this home lacks.
        unknown_devices: names that this home lacks, by domain.
        numbers: how numbers are said.
        polite: polite words around a sentence.
        answers: what is said where no tool is called.
        fill: what fills the places in `sentences`; the rooms are `area` and the lights `light`.
        sentences: sentences that are no command, with places such as `{s}`.
        few_words: what is no command at all, each with its answer.
    """

    file: str
    language: str
    areas: tuple[str, ...]
    floors: tuple[str, ...]
    devices: dict[str, tuple[str, ...]]
    values: dict[str, tuple[str, ...]]
    unknown_areas: tuple[str, ...]
    unknown_devices: dict[str, tuple[str, ...]]
    numbers: Numbers
    polite: Polite
    answers: Answers
    fill: dict[str, tuple[str, ...]]
    sentences: tuple[str, ...]
    few_words: tuple[tuple[str, str], ...]


def shipped_homes() -> list[str]:
    """The languages whose home comes with kdfast."""
    return sorted(path.stem for path in _HOMES.glob("*.yaml"))


def load_home(language: str, path: Path | None = None) -> Home:
    """Reads a home.

    Args:
        language: the language of the templates.
        path: the home's file; None = the one that comes with kdfast.

    Raises:
        DataError: there is none, or the file is wrong; the message names the key.
        OSError: the file cannot be read.
    """
    if path is None:
        path = _HOMES / f"{language}.yaml"
        if language not in shipped_homes():
            raise DataError(
                f"no home of the language {language!r} comes with kdfast (there are: {', '.join(shipped_homes())}); "
                "copy one, translate it, and give it by --home"
            )
    home = _home(read_yaml(path))
    if home.language != language:
        raise DataError(
            f"language: the home speaks {home.language!r}, and the templates {language!r}; give another --home or "
            "--language",
            str(path),
        )
    return home


def _home(root: Node) -> Home:
    keys = root.section(
        "language", "areas", "floors", "devices", "values", "unknown", "numbers", "polite", "answers",
        "out_of_domain", "few_words",
    )  # fmt: skip
    unknown = keys["unknown"].section("areas", "devices")
    numbers = keys["numbers"].section("usual", "usual_share", "in_words_share", "most_in_a_sentence")
    polite = keys["polite"].section("before", "before_verbs", "verbs", "after", "before_share", "after_share")
    other = keys["out_of_domain"].section("fill", "sentences")
    home = Home(
        file=root.file,
        language=keys["language"].text(),
        areas=keys["areas"].texts(),
        floors=keys["floors"].texts(),
        devices=keys["devices"].text_lists(),
        values=keys["values"].text_lists(),
        unknown_areas=unknown["areas"].texts(),
        unknown_devices=unknown["devices"].text_lists(),
        numbers=Numbers(
            usual={
                name: tuple(item.number(-1e9, 1e9) for item in node.items())
                for name, node in numbers["usual"].mapping().items()
            },
            usual_share=numbers["usual_share"].share(),
            in_words_share=numbers["in_words_share"].share(),
            most=numbers["most_in_a_sentence"].count(),
        ),
        polite=Polite(
            before=polite["before"].spoken(),
            before_verbs=polite["before_verbs"].spoken(),
            verbs=frozenset(polite["verbs"].spoken()),
            after=polite["after"].spoken(),
            before_share=polite["before_share"].share(),
            after_share=polite["after_share"].share(),
        ),
        answers=_answers(keys["answers"]),
        fill=other["fill"].text_lists(),
        sentences=other["sentences"].texts(),
        few_words=tuple(_few_words(node) for node in keys["few_words"].items()),
    )
    _check_places(home, other["sentences"])
    _check_unknown(home, keys["unknown"])
    return home


def _answers(node: Node) -> Answers:
    keys = node.section("refusal", "unknown_device", "unknown_area", "nevermind", "missing", "responses")
    return Answers(
        refusal=_said(keys["refusal"]),
        unknown_device=_said(keys["unknown_device"]),
        unknown_area=_said(keys["unknown_area"]),
        nevermind=_said(keys["nevermind"]),
        missing={name: _said(child) for name, child in keys["missing"].mapping().items()},
        responses={name: _said(child) for name, child in keys["responses"].mapping().items()},
    )


def _said(node: Node) -> str:
    """An answer without a call."""
    text = node.text().strip()
    if find_tool_calls(text):
        raise node.wrong(f"an answer without a call, and a tool call can be read in it: {text!r}")
    return text


def _few_words(node: Node) -> tuple[str, str]:
    keys = node.section("say", "answer")
    return keys["say"].text().strip(), _said(keys["answer"])


def _check_places(home: Home, node: Node) -> None:
    known = {*home.fill, *_FILLED_BY_HOME}
    for index, sentence in enumerate(home.sentences):
        try:
            parsed = [part for part in string.Formatter().parse(sentence) if part[1] is not None]
        except ValueError as error:
            raise node.wrong(f"[{index}]: {error}; a place is written {{name}}: {sentence!r}") from None
        if any(form or conversion for _, _, form, conversion in parsed):
            raise node.wrong(f"[{index}]: a place is a name alone, as in {{s}}: {sentence!r}")
        if {name for _, name, _, _ in parsed} - known:
            names = ", ".join(sorted(known))
            raise node.wrong(
                f"[{index}]: a place that out_of_domain.fill lacks; there are {names}: {sentence!r}"
            )


def _check_unknown(home: Home, node: Node) -> None:
    """An unknown name must be in no name of the home, or a sentence with it could be a real command."""
    names = [*home.areas, *home.floors, *home.values.get("zone", ())]
    names += [name for group in home.devices.values() for name in group]
    known = {f" {fold(name)} ": name for name in names}
    unknown = [("areas", name) for name in home.unknown_areas]
    unknown += [
        (f"devices.{domain}", name) for domain, group in home.unknown_devices.items() for name in group
    ]
    for key, name in unknown:
        inside = next((own for folded, own in known.items() if f" {fold(name)} " in folded), None)
        if inside is not None:
            raise DataError(
                f"unknown.{key}: {name!r} occurs in this home ({inside!r}); remove one of the two", node.file
            )
