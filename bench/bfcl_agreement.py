"""Does kdfast's scoring say of a call what BFCL's own checker says? Both, on the same calls.

    python bench/bfcl_agreement.py .cache/wheels/bfcl_eval-*.whl

For each record of BFCL's Python categories that has a ground truth: the right calls, and many mutations of them
(another accepted value, a wrong one, another type, an argument too few or too many, another function, a call too few or
too many, another order, ...). kdfast gets them as an answer's text, `<tool_call>` tags and all, finds the calls, and
scores them (`kdfast.scoring.score_answer`, its `exact_match`); BFCL's `ast_checker`, taken from the wheel, gets them
decoded. Besides, `calls_right` is held against pairing calls and ground truths one by one with BFCL's
`simple_function_checker`.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import tempfile
import time
import types
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdfast.importers.bfcl import CALL_CATEGORIES, import_bfcl
from kdfast.scoring import score_answer

# In these BFCL checks source text of another language, kdfast JSON values: a difference on purpose.
PYTHON_CATEGORIES = tuple(name for name in CALL_CATEGORIES if "java" not in name)
RESULTS = Path(__file__).parent / "results"

Call = dict[str, Any]  # {"name", "arguments"}


@dataclass(frozen=True, kw_only=True)
class Checker:
    """BFCL's own functions."""

    ast: Callable[..., Any]
    simple: Callable[..., Any]
    find: Callable[..., Any]
    python: Any

    def valid(self, functions: list[Any], calls: list[Call], truth: list[Any], category: str) -> bool | None:
        """Its verdict; None = it crashed."""
        made = [{call["name"]: copy.deepcopy(call["arguments"])} for call in calls]
        try:
            return bool(self.ast(functions, made, truth, self.python, category, "kdfast")["valid"])
        except (AttributeError, IndexError, KeyError, TypeError):
            return None

    def right(self, functions: list[Any], calls: list[Call], truth: list[Any]) -> int | None:
        """How many ground truths have a call of their own, the first that matches; None = it crashed."""
        unused, right = [{call["name"]: copy.deepcopy(call["arguments"])} for call in calls], 0
        try:
            for one in truth:
                function = self.find(functions, next(iter(one)))
                for place, call in enumerate(unused):
                    if self.simple(function, call, one, self.python, "kdfast")["valid"]:
                        right += 1
                        del unused[place]
                        break
        except (AttributeError, IndexError, KeyError, TypeError):
            return None
        return right


@dataclass
class Agreement:
    """What was compared and how it came out."""

    compared: Counter[str] = field(default_factory=Counter)  # by category
    right: int = 0  # both say: right
    wrong: int = 0  # both say: wrong
    crashed: int = 0  # BFCL's checker raised; kdfast says: wrong
    counts: int = 0  # calls_right compared
    on_purpose: Counter[str] = field(default_factory=Counter)
    differences: list[dict[str, Any]] = field(default_factory=list)


def load_checker(wheel: Path) -> Checker:
    """The checker inside the wheel (its other modules import every vendor's client, so they are not loaded)."""
    settings = types.ModuleType("bfcl_eval.constants.model_config")
    settings.MODEL_CONFIG_MAPPING = {"kdfast": types.SimpleNamespace(underscore_to_dot=False)}  # type: ignore[attr-defined]
    sys.modules["bfcl_eval.constants.model_config"] = settings
    sys.path.insert(0, str(wheel))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its regular expressions
            from bfcl_eval.constants.enums import Language
            from bfcl_eval.eval_checker.ast_eval import ast_checker
    finally:
        sys.path.remove(str(wheel))
    return Checker(
        ast=ast_checker.ast_checker,
        simple=ast_checker.simple_function_checker,
        find=ast_checker.find_description,
        python=Language.PYTHON,
    )


def read_records(wheel: Path) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """Each imported record with BFCL's own definitions of its functions."""
    with tempfile.TemporaryDirectory() as folder:
        summary = import_bfcl(wheel, folder, categories=PYTHON_CATEGORIES)
        lines = [*summary.train_path.open(encoding="utf-8"), *summary.validation_path.open(encoding="utf-8")]
    with zipfile.ZipFile(wheel) as files:
        functions = {}
        for category in PYTHON_CATEGORIES:
            text = files.read(f"bfcl_eval/data/BFCL_v4_{category}.json").decode("utf-8")
            for line in text.split("\n"):
                if line.strip():
                    entry = json.loads(line)
                    functions[entry["id"]] = entry["function"]
    for line in sorted(lines):
        record = json.loads(line)
        yield record, functions[record["metadata"]["id"]]


def mutated(calls: list[Call], truth: list[Any], names: Sequence[str], rng: random.Random) -> list[Call]:
    """The calls with one change."""
    calls = copy.deepcopy(calls)
    if not calls:
        return calls
    call = rng.choice(calls)
    arguments = call["arguments"]
    kind = rng.randrange(12)
    if kind == 0:
        calls.remove(call)
    elif kind == 1:
        calls.insert(rng.randrange(len(calls) + 1), copy.deepcopy(call))
    elif kind == 2:
        rng.shuffle(calls)
    elif kind == 3:
        call["name"] = rng.choice([*names, call["name"].upper(), "unknown"])
    elif kind == 4:
        arguments["surplus"] = 1
    elif kind == 5 and arguments:
        del arguments[rng.choice(list(arguments))]
    elif kind <= 8:
        _use_accepted(arguments, [one[call["name"]] for one in truth if call["name"] in one], rng)
    elif arguments:
        key = rng.choice(list(arguments))
        arguments[key] = _near(arguments[key], rng) if kind < 11 else rng.choice(_OTHERS)
    return calls


_OTHERS = (None, 1, 1.5, "a", [], {}, [1], ["a"], True, {"a": 1})


def _use_accepted(arguments: dict[str, Any], truths: list[dict[str, Any]], rng: random.Random) -> None:
    """Another accepted value, also of an argument that is optional and not given."""
    filled = [values for values in truths if values]
    if filled:
        values = rng.choice(filled)
        key = rng.choice(list(values))
        if isinstance(values[key], list) and values[key]:
            arguments[key] = copy.deepcopy(rng.choice(values[key]))


def _near(value: Any, rng: random.Random) -> Any:
    """A value that is nearly the same, or the same to BFCL."""
    if isinstance(value, bool):
        return rng.choice([not value, str(value), int(value)])
    if isinstance(value, (int, float)):
        return rng.choice([float(value), value + 1, str(value), int(value)])
    if isinstance(value, str):
        return rng.choice(
            [value.upper(), value.replace(" ", "_"), value + "x", value.replace("'", '"'), value + "."]
        )
    if isinstance(value, list):
        upper = [one.upper() if isinstance(one, str) else one for one in value]
        return rng.choice([value[::-1], value[1:], value + value[:1], [str(one) for one in value], upper, []])
    if isinstance(value, dict) and value:
        key = rng.choice(list(value))
        without = {name: one for name, one in value.items() if name != key}
        return rng.choice([without, value | {key: str(value[key]).upper()}, value | {"surplus": 1}])
    return value


def compare(wheel: Path, *, per_record: int, seed: int = 0, every: int = 1) -> Agreement:
    """Compares both on every `every`-th record: its right calls, and mutations up to `per_record` sets of calls."""
    checker, rng, agreement = load_checker(wheel), random.Random(seed), Agreement()
    for number, (record, functions) in enumerate(read_records(wheel)):
        if number % every:
            continue
        base = [call["function"] for call in record["truth_message"]["tool_calls"]]
        truth, names = record["metadata"]["accepted"], [function["name"] for function in functions]
        for turn in range(per_record):
            calls = base if turn == 0 else mutated(base, truth, names, rng)
            if turn and rng.random() < 0.3:
                calls = mutated(calls, truth, names, rng)
            _compare_one(checker, record, functions, calls, agreement)
    return agreement


def _compare_one(
    checker: Checker,
    record: Mapping[str, Any],
    functions: list[Any],
    calls: list[Call],
    agreement: Agreement,
) -> None:
    category, truth = record["metadata"]["category"], record["metadata"]["accepted"]
    text = "\n".join(f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>" for call in calls)
    score = score_answer(text, record["tools"], accepted=truth, reference_text="", should_call=True)
    verdict = checker.valid(functions, calls, truth, category)
    right = checker.right(functions, calls, truth)
    agreement.compared[category] += 1
    agreement.counts += right is not None
    found = score.calls_made == len(calls)
    if found and right in (None, score.calls_right) and bool(verdict) == score.exact_match:
        agreement.crashed += verdict is None
        agreement.right += verdict is True
        agreement.wrong += verdict is False
        return
    if found and not verdict and _has_list_of_any(functions, calls):
        agreement.on_purpose["list items of any type need not be text"] += 1
        return
    agreement.differences.append(
        {
            "id": record["metadata"]["id"],
            "calls": calls,
            "accepted": truth,
            "bfcl": [verdict, right],
            "kdfast": [score.exact_match, score.calls_right, score.calls_made],
            "mismatch": None if score.mismatch is None else score.mismatch.detail,
        }
    )


def _has_list_of_any(functions: list[Any], calls: list[Call]) -> bool:
    """Whether an argument that is given is a list whose items may be anything."""
    for function in functions:
        for call in calls:
            for name, schema in function["parameters"]["properties"].items():
                given = call["name"] == function["name"] and isinstance(call["arguments"].get(name), list)
                if given and schema.get("items", {}).get("type") == "any":
                    return True
    return False


def main() -> None:
    """Compares and writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--per-record", type=int, default=60, help="sets of calls for each record")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.perf_counter()
    agreement = compare(arguments.wheel, per_record=arguments.per_record, seed=arguments.seed)
    seconds = time.perf_counter() - started
    text = report(agreement, arguments, seconds)
    (RESULTS / "bfcl_agreement.md").write_text(text, encoding="utf-8")
    print(text)
    for difference in agreement.differences[:20]:
        print(json.dumps(difference, ensure_ascii=False), file=sys.stderr)
    sys.exit(bool(agreement.differences))


def report(agreement: Agreement, arguments: argparse.Namespace, seconds: float) -> str:
    """The result in words."""
    total = agreement.compared.total()
    rows = "\n".join(f"| {name} | {count} |" for name, count in sorted(agreement.compared.items()))
    purpose = "\n".join(
        f"- {count} times on purpose: {what}." for what, count in agreement.on_purpose.items()
    )
    return f"""# Scoring against BFCL's own checker

Compared with `python bench/bfcl_agreement.py {arguments.wheel.name} --per-record {arguments.per_record} \
--seed {arguments.seed}` in {seconds:.0f} s of one core.

Each record's right calls and mutations of them, {total} sets of calls, as an answer's text to kdfast and decoded to
BFCL's `ast_checker`. **They differ in {len(agreement.differences)}.**

- both say right: {agreement.right}; both say wrong: {agreement.wrong}
- BFCL's checker crashes and kdfast says wrong: {agreement.crashed}
- right calls, counted one by one, compared with `simple_function_checker`: {agreement.counts} times{purpose}

Not compared: the Java and JavaScript categories, where BFCL reads source text and kdfast JSON values, and records that
the import leaves out because their own tool definition rules out their ground truth.

| category | sets of calls |
|---|---|
{rows}
"""


if __name__ == "__main__":
    main()
