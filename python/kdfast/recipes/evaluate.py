"""`kdfast eval`: does a model call the right tools with the right arguments?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from kdfast.display import Display
from kdfast.errors import ConfigError, DataError
from kdfast.evaluate import (
    EVALUATION_KIND,
    SCHEMA_VERSION,
    Constraint,
    Decoding,
    EvalPrompt,
    eval_prompts,
    evaluate,
)
from kdfast.evaluate.constrained import SchemaConstraint, require_llguidance
from kdfast.evaluate.grammar import FRAMES
from kdfast.evaluate.prompts import schema_notes
from kdfast.evaluate.table import category_table, evaluation_table, not_counted_text, wrong_answers_table
from kdfast.files import check_file, write_document
from kdfast.recipes import loaded_model
from kdfast.recipes.first_look.of_model import check_unconstrained, export_warning
from kdfast.recipes.loaded_model import LoadedModel, model_folder
from kdfast.recipes.requests import EvaluateRequest
from kdfast.runs.csv_files import csv_path, write_evaluation_csv

_MOST_WARNINGS = 5
"""How many warnings of a kind are shown; the file has all of them."""


def run(request: EvaluateRequest) -> int:
    """Evaluates and writes the file: first with the free answers, then again with the constrained ones added.

    The answers are also written as CSV, beside the file. A record whose tools are no valid JSON Schema is left out,
    with a warning.

    Returns:
        0.

    Raises:
        ConfigError: there is no model; this machine lacks the device; llguidance is needed and not installed; or
            constrained calls would not count, or an export shall make them; or `out` ends with .csv.
        DataError: bad records, or none; a prompt that is too long for the model; logits that are NaN.
        SchemaError: the tools of a prompt cannot be turned into a grammar.
        OSError: a file cannot be read or written.
    """
    if request.constrained:
        check_unconstrained(request.model)
        require_llguidance()
    model_folder(request.model)
    _check_files(request)
    with loaded_model.load(request.model, request, leave_out_bad_tools=True) as loaded:
        _run(request, loaded)
    return 0


def _run(request: EvaluateRequest, loaded: LoadedModel) -> None:
    prompts = eval_prompts(loaded.dataset, request.limit)
    constraint = _constraint(loaded, prompts) if request.constrained else None
    display = Display()
    warning = export_warning(request.model)
    _warn(display.console, [warning] if warning else [])
    head = _head(request, loaded) | {"schema_notes": schema_notes(prompts)}
    _warn(display.console, [f"line {one.line} is left out: {one.error}" for one in loaded.left_out])
    _warn(display.console, head["schema_notes"])
    document = head | _answers(request, loaded, prompts, display, None)
    _write(request, document)
    if constraint is not None:
        document["constrained"] = _answers(request, loaded, prompts, display, constraint) | {
            "warnings": constraint.warnings
        }
        _write(request, document)
    _show(display.console, document, request)


def _check_files(request: EvaluateRequest) -> None:
    if request.out.suffix.lower() == ".csv":
        raise ConfigError(
            "--out: is the JSON file, and the CSV file with the answers is written beside it; end it with .json: "
            f"{request.out}"
        )
    for file in (request.out, csv_path(request.out)):
        check_file(file)


def _write(request: EvaluateRequest, document: Mapping[str, Any]) -> None:
    write_document(request.out, document)
    write_evaluation_csv(request.out, document)


def _head(request: EvaluateRequest, loaded: LoadedModel) -> dict[str, Any]:
    provenance = loaded.provenance()
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": EVALUATION_KIND,
        "evaluated_at": provenance.measured_at,
        "export": provenance.export,
        "model": str(request.model),
        "prompts_file": str(request.prompts),
        "fingerprints": dict(provenance.fingerprints),
        "decoding": {
            "sampling": "greedy",
            "max_new_tokens": request.max_new_tokens,
            "batch_size": 1 if provenance.export else request.batch_size,
            "dtype": provenance.hardware.dtype,
            "formats": list(loaded.formats),
            "thinking": loaded.dataset.thinking,
            "eos_ids": sorted(loaded.options.eos_ids),
        },
        "left_out": [one.to_json() for one in loaded.left_out],
    }


def _constraint(loaded: LoadedModel, prompts: list[EvalPrompt]) -> SchemaConstraint:
    written = next((name for name in loaded.formats if name in FRAMES), None)
    if written is None:
        raise ConfigError(
            f"--formats: must name {', '.join(FRAMES)}: constrained calls are written in one of these, got "
            f"{list(loaded.formats)}"
        )
    tokenizer = (loaded.directory / "tokenizer.json").read_text(encoding="utf-8")
    try:
        return SchemaConstraint(tokenizer, loaded.options.eos_ids, prompts, written)
    except ValueError as error:
        error.add_note(f"of {loaded.settings.prompts}")
        raise


def _answers(
    request: EvaluateRequest,
    loaded: LoadedModel,
    prompts: list[EvalPrompt],
    display: Display,
    constraint: Constraint | None,
) -> dict[str, Any]:
    ends = loaded.options.eos_ids
    decoding = Decoding(
        eos_ids=ends,
        pad_id=ends[0],
        max_new_tokens=request.max_new_tokens,
        batch_size=request.batch_size,
    )
    with display.working("evaluate" if constraint is None else "constrain", len(prompts)) as on_progress:
        try:
            evaluation = evaluate(
                loaded.engine if loaded.model is None else loaded.model,
                prompts,
                loaded.tokenizer.decode,
                decoding,
                lambda done, tokens: on_progress(done, f"{tokens} tokens"),
                constraint=constraint,
                formats=loaded.formats,
            )
        except FloatingPointError as error:
            raise DataError(f"cannot be evaluated: {error}", str(loaded.named)) from error
    return evaluation.to_json()


def _show(console: Console, document: Mapping[str, Any], request: EvaluateRequest) -> None:
    sides = {"free": document} | (
        {"constrained": document["constrained"]} if "constrained" in document else {}
    )
    console.print(evaluation_table(sides))
    for name, side in sides.items():
        if len(side["categories"]) > 1:
            title = "By category" if name == "free" else "By category, constrained"
            console.print(category_table(side, title))
        reasons = ", ".join(f"{reason} {count}" for reason, count in side["mismatches"].items())
        if reasons:
            _line(console, "no exact match" if name == "free" else "  constrained", reasons)
    not_counted = not_counted_text(document["not_counted"])
    if not_counted:
        _line(console, "not counted", not_counted)
    if document["no_truth"]:
        text = f"{document['no_truth']} prompts need a call and have no right answer that can be read"
        _line(console, "no right answer", text)
    for name, reason in document["quality"].get("absent", {}).items():
        _line(console, name, f"absent: {reason}")
    if document["left_out"]:
        text = f"{len(document['left_out'])} of the file's records, as their tools are no valid JSON Schema"
        _line(console, "left out", text)
    _warn(console, document.get("constrained", {}).get("warnings", ()))
    wrong = wrong_answers_table(document["answers"], request.show)
    if wrong is not None:
        console.print(wrong)
    _line(console, "evaluation", str(request.out))
    _line(console, "answers", str(csv_path(request.out)))


def _warn(console: Console, warnings: Sequence[str]) -> None:
    for warning in warnings[:_MOST_WARNINGS]:
        _line(console, "warning", warning)
    if len(warnings) > _MOST_WARNINGS:
        _line(console, "", f"and {len(warnings) - _MOST_WARNINGS} more, see the file")


def _line(console: Console, name: str, text: str) -> None:
    console.print(f"  {name:<18} {text}", highlight=False, soft_wrap=True, markup=False)
