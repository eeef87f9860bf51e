"""Import of the Berkeley Function Calling Leaderboard (the data inside the PyPI package `bfcl-eval`).

Single-turn categories with a ground truth become tool calls; the irrelevance categories become short
synthetic refusals. Records that are left out are counted by reason:

- `live_relevance` has no ground truth, and a refusal would be wrong;
- a few ground truths (under 2 %) break their own tool definition: a variable's name where an array is needed
  (mostly Java and JavaScript), or a value outside the `enum`. A student must not learn calls that the schema
  forbids; and with a changed schema the question would be another one.

Java and JavaScript: BFCL lets models answer with source text (`"5L"`) and converts it; its ground truths hold
plain JSON values (5). The imported calls use those values and the JSON types of the parameters.

Source of the data: https://github.com/ShishirPatil/gorilla, Apache-2.0.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kdfast.errors import DataError
from kdfast.importers.bfcl_calls import BrokenTruthError, ground_truth_calls, refusal
from kdfast.importers.bfcl_schema import json_schema
from kdfast.importers.bfcl_split import Shares, split
from kdfast.importers.writing import to_line, write_files

CALL_CATEGORIES = (
    "simple_python",
    "simple_java",
    "simple_javascript",
    "multiple",
    "parallel",
    "parallel_multiple",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
)
REFUSAL_CATEGORIES = ("irrelevance", "live_irrelevance")
LEFT_OUT_CATEGORIES = ("live_relevance",)
CATEGORIES = CALL_CATEGORIES + REFUSAL_CATEGORIES + LEFT_OUT_CATEGORIES

_LANGUAGES = {"simple_java": "java", "simple_javascript": "javascript"}
_DATA = "bfcl_eval/data"


@dataclass(frozen=True, kw_only=True)
class ImportSummary:
    """What an import read, left out and wrote.

    Attributes:
        read: how many records the source has, per category.
        skipped: how many records were left out, per reason.
        train: how many records were written to `train.jsonl`, per category.
        validation: how many records were written to `validation.jsonl`, per category.
        train_path: the file of training records.
        validation_path: the file of held-out records.
    """

    read: dict[str, int]
    skipped: dict[str, int]
    train: dict[str, int]
    validation: dict[str, int]
    train_path: Path
    validation_path: Path

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON values."""
        return asdict(self) | {
            "train_path": str(self.train_path),
            "validation_path": str(self.validation_path),
        }


@dataclass
class _Tally:
    read: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)


def import_bfcl(
    source: Path,
    out: Path,
    *,
    categories: Sequence[str] = CATEGORIES,
    shares: Shares = Shares(),  # noqa: B008 (frozen)
    max_chars: int | None = None,
    seed: int = 0,
) -> ImportSummary:
    """Turns BFCL's single-turn data into `train.jsonl` and `validation.jsonl`, in kdfast's record form.

    The same source, arguments and seed give the same bytes. Both files are written under temporary names, and
    renamed when both are complete.

    Args:
        source: the `bfcl-eval` wheel, or a directory that holds `bfcl_eval/data` (an unpacked wheel).
        out: the directory of the two files; created if missing.
        categories: the categories to import, from `CATEGORIES`.
        shares: the sizes of the two files, see `Shares`.
        max_chars: leave out records whose messages and tools, as compact JSON, are longer; None = keep all.
        seed: the seed of the split, the draw, the order and the wording of refusals.

    Raises:
        DataError: the source is not BFCL data, a category is unknown, or there are fewer records than asked for.
        OSError: a file cannot be read or written.
    """
    unknown = sorted(set(categories) - set(CATEGORIES))
    if unknown:
        raise DataError(f"unknown BFCL categories; known are {', '.join(CATEGORIES)}: {', '.join(unknown)}")
    files = _read_source(Path(source), categories)
    tally = _Tally()
    records = []
    for category in CATEGORIES:
        if category in categories:
            records += _category_records(category, files, tally, max_chars, seed)
    train, validation = split(records, shares, seed)
    sides = {"train.jsonl": train, "validation.jsonl": validation}
    paths = write_files(Path(out), {name: map(to_line, records) for name, records in sides.items()})
    return ImportSummary(
        read=dict(tally.read),
        skipped=dict(tally.skipped),
        train=dict(Counter(record["metadata"]["category"] for record in train)),
        validation=dict(Counter(record["metadata"]["category"] for record in validation)),
        train_path=paths["train.jsonl"],
        validation_path=paths["validation.jsonl"],
    )


def questions(source: Path, categories: Sequence[str]) -> list[str]:
    """The questions of one turn and one message, in BFCL's order.

    Args:
        source: as for `import_bfcl`.
        categories: from `CATEGORIES`.

    Raises:
        DataError: the source is not BFCL data.
        OSError: a file cannot be read.
    """
    files = _read_source(Path(source), categories)
    result = []
    for category in categories:
        name = f"BFCL_v4_{category}.json"
        for entry in _json_lines(name, files[name]):
            try:
                turn = entry["question"][0]
                if len(turn) == 1:
                    result.append(str(turn[0]["content"]))
            except (KeyError, IndexError, TypeError) as error:
                raise DataError(f"not a BFCL v4 record ({error!r}): {entry!r:.80}", name) from error
    return result


def _read_source(source: Path, categories: Sequence[str]) -> dict[str, str]:
    """The text of each data file that is needed, by its path in the data directory."""
    names = [f"BFCL_v4_{category}.json" for category in categories]
    names += [f"possible_answer/BFCL_v4_{name}.json" for name in categories if name in CALL_CATEGORIES]
    remedy = "give the bfcl-eval wheel, or the directory that it was unpacked into"
    if not source.exists():
        raise DataError(f"no such file or directory; {remedy}", str(source))
    texts = {}
    try:
        if source.is_dir():
            for name in names:
                texts[name] = (source / _DATA / name).read_text(encoding="utf-8")
        else:
            with zipfile.ZipFile(source) as wheel:
                for name in names:
                    texts[name] = wheel.read(f"{_DATA}/{name}").decode("utf-8")
    except zipfile.BadZipFile:
        raise DataError(f"not a wheel; {remedy}", str(source)) from None
    except (KeyError, FileNotFoundError):
        raise DataError(f"no BFCL v4 data inside; {remedy}; missing: {_DATA}/{name}", str(source)) from None
    except UnicodeDecodeError:
        raise DataError("not UTF-8", f"{source}:{name}") from None
    return texts


def _json_lines(name: str, text: str) -> Iterator[dict[str, Any]]:
    # Not splitlines(): it would also split at U+2028 and similar characters inside a string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"not JSON ({error.msg})", name, number, error.colno) from None


def _category_records(
    category: str, files: dict[str, str], tally: _Tally, max_chars: int | None, seed: int
) -> list[dict[str, Any]]:
    name = f"BFCL_v4_{category}.json"
    truths = {
        truth["id"]: truth["ground_truth"]
        for truth in _json_lines(f"possible_answer/{name}", files.get(f"possible_answer/{name}", ""))
    }
    records = []
    for entry in _json_lines(name, files[name]):
        tally.read[category] += 1
        if category in LEFT_OUT_CATEGORIES:
            tally.skipped["no ground truth"] += 1
            continue
        try:
            record = _record(category, entry, truths, seed)
        except BrokenTruthError as error:
            tally.skipped[str(error)] += 1
            continue
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise DataError(f"not a BFCL v4 record ({error!r}): {entry!r:.80}", name) from error
        if max_chars is not None and _chars(record) > max_chars:
            tally.skipped[f"longer than {max_chars} characters"] += 1
        else:
            records.append(record)
    return records


def _record(category: str, entry: dict[str, Any], truths: dict[str, Any], seed: int) -> dict[str, Any]:
    functions = entry["function"]
    if not functions:
        raise BrokenTruthError("no tools at all")
    schemas = {function["name"]: json_schema(function["parameters"]) for function in functions}
    tools = [
        {
            "type": "function",
            "function": {
                "name": function["name"],
                "description": function["description"],
                "parameters": schemas[function["name"]],
            },
        }
        for function in functions
    ]
    metadata: dict[str, Any] = {
        "id": entry["id"],
        "category": category,
        "language": _LANGUAGES.get(category, "python"),
    }
    message: dict[str, Any] = {"role": "assistant", "content": None}
    if category in REFUSAL_CATEGORIES:
        message["content"] = refusal(entry["id"], list(schemas), seed)
        metadata["synthetic"] = True
    else:
        accepted = truths[entry["id"]]
        calls = ground_truth_calls(accepted, schemas)
        message["tool_calls"] = [{"type": "function", "function": call} for call in calls]
        metadata["accepted"] = accepted
    return {
        "messages": [{"role": turn["role"], "content": turn["content"]} for turn in entry["question"][0]],
        "tools": tools,
        "truth_message": message,
        "tool_should_be_used": category not in REFUSAL_CATEGORIES,
        "metadata": metadata,
    }


def _chars(record: dict[str, Any]) -> int:
    return len(to_line([record["messages"], record["tools"]]))
