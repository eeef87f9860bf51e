"""Runs an export and compares it with what was trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kdfast.display import Display
from kdfast.errors import ConfigError
from kdfast.export.gguf import end_ids
from kdfast.export.gguf.families import read_shape
from kdfast.export.hf import check_hf
from kdfast.export.parity.calls import Answering, check_calls
from kdfast.export.parity.logits import check_logits
from kdfast.export.parity.positions import position_problems
from kdfast.export.parity.prompts import check_prompts
from kdfast.export.parity.result import ParityCheck
from kdfast.export.parity.weights import check_weights
from kdfast.export.shipped import Shipped
from kdfast.llama_cpp import LlamaCppModel, serve
from kdfast.pretrained import PromptMaker
from kdfast.recipes.export.student import Student

Checks = dict[str, ParityCheck]

_SAME_RUNTIME = "transformers runs the same weights as in training"
_NO_PARSER = "vLLM is not run here; its parser is its own"


def verify_gguf(student: Student, file: Path, shipped: Shipped, display: Display) -> Checks:
    """Reads a GGUF file back, then lets llama.cpp run it on the held-out records.

    Args:
        student: the student; its model in torch gets the values that ship.
        file: the GGUF file.
        shipped: what it must hold.
        display: shows progress.

    Returns:
        the checks `weights`, `logits`, `prompt` and `calls`.

    Raises:
        DataError: the file is damaged, or llama.cpp cannot load it.
        ConfigError: there are no records.
    """
    dataset, request = student.dataset, student.request
    if dataset is None:
        raise ConfigError("--prompts: needed to compare the export on (held-out records, JSONL)")
    with display.working("verify", 4) as on_progress:
        checks = [_weights(student, file, shipped)]
        shipped.put_into(student.model)
        records = student.records
        context = _context(student)
        on_progress(1, "logits")
        with LlamaCppModel(file, context=context, threads=request.threads) as runtime:
            logits = check_logits(
                student.model,
                runtime,
                records,
                show_token=lambda token: repr(dataset.tokenizer.decode([token])),
                on_progress=_noted(on_progress, 1, "logits"),
            )
            on_progress(2, "prompts")
            with serve(file, context=context, threads=request.threads) as server:
                prompts = check_prompts(
                    server,
                    records,
                    dataset.tokenizer,
                    template_kwargs=request.template_kwargs,
                    waivers=request.waive,
                )
                on_progress(3, "calls")
                answering = Answering(
                    formats=dataset.formats,
                    end_ids={*end_ids(student.directory), *dataset.turn_end_ids[-1:]},
                    max_tokens=request.answer_tokens,
                    template_kwargs=request.template_kwargs,
                    server_reads_calls=not dataset.template.hides_tools,
                )
                calls = check_calls(
                    server,
                    runtime,
                    records,
                    answering,
                    waivers=request.waive,
                    on_progress=_noted(on_progress, 3, "calls"),
                )
        on_progress(4, "")
    found = {check.name: check for check in (*checks, logits, prompts, calls)}
    return _proven(found, pre=request.pre)


def _weights(student: Student, file: Path, shipped: Shipped) -> ParityCheck:
    """Weights and keys of the file, and the positions that they make."""
    found = check_weights(file, shipped, student.directory, pre=student.request.pre)
    problems = position_problems(student.model, student.directory)
    if not problems:
        return found
    return replace(found, status="failed", problems=(*found.problems, *problems))


def _proven(checks: Checks, *, pre: str | None) -> Checks:
    """The checks, of which some failed if they could not be made: nothing leaves by a proof that was not made."""
    logits, prompts = checks["logits"], checks["prompt"]
    if "positions" not in logits.figures:
        why = f"llama.cpp computed nothing: {logits.reason}; name other records with --prompts"
        checks["logits"] = replace(logits, status="failed", problems=(*logits.problems, why))
    if pre is not None and prompts.status != "passed" and not prompts.failed:
        why = f"--pre {pre} is not proven: no record's prompt was compared and equal"
        checks["prompt"] = replace(prompts, status="failed", problems=(*prompts.problems, why))
    return checks


def verify_hf(student: Student, directory: Path) -> Checks:
    """Compares a copied Hugging Face directory with its source, and the prompts that transformers makes with it.

    Args:
        student: the student.
        directory: the copy.

    Returns:
        the checks `weights` and `prompt`; `logits` and `calls` are not measured.
    """
    dataset, request = student.dataset, student.request
    if dataset is None:
        raise ConfigError("--prompts: needed to compare the export on (held-out records, JSONL)")
    weights = check_hf(directory, student.directory)
    prompts = (
        ParityCheck(name="prompt", status="not_measured", reason="the copy is not that of the student")
        if weights.failed
        else check_prompts(
            PromptMaker(directory),
            student.records,
            dataset.tokenizer,
            template_kwargs=request.template_kwargs,
            waivers=request.waive,
        )
    )
    logits = ParityCheck(name="logits", status="not_measured", reason=_SAME_RUNTIME)
    calls = ParityCheck(name="calls", status="not_measured", reason=_NO_PARSER)
    return {check.name: check for check in (weights, logits, prompts, calls)}


def _noted(on_progress: Callable[[int, str], None], part: int, what: str) -> Callable[[int, int], None]:
    return lambda done, total: on_progress(part, f"{what} {done}/{total}")


def _context(student: Student) -> int:
    """Tokens that the longest record and an answer take, within what the student was made for."""
    longest = max((len(record.ids) for record in student.records), default=0)
    return min(read_shape(student.directory).context, longest + student.request.answer_tokens)
