"""The evaluation by generation, before and after training: does the student call tools?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from kdfast.config import Config
from kdfast.data import KDDataset
from kdfast.display import Display
from kdfast.errors import DataError
from kdfast.evaluate import EVALUATION_KIND, SCHEMA_VERSION, Decoding, EvalPrompt, eval_prompts, evaluate
from kdfast.files import read_document, write_document
from kdfast.runs.csv_files import write_evaluation_csv
from kdfast.speed import SpeedPrompt, prompts_fingerprint, truth_fingerprint


def choose_prompts(dataset: KDDataset, tools: int, others: int) -> list[EvalPrompt]:
    """The first `tools` held-out prompts that need a call and the first `others` that need none.

    Raises:
        DataError: the file has fewer.
    """
    prompts: dict[bool, list[EvalPrompt]] = {True: [], False: []}
    wanted = {True: tools, False: others}
    for prompt in eval_prompts(dataset):
        if len(prompts[prompt.should_call]) < wanted[prompt.should_call]:
            prompts[prompt.should_call].append(prompt)
    for should_call, key in ((True, "eval_prompts"), (False, "eval_irrelevance_prompts")):
        if len(prompts[should_call]) < wanted[should_call]:
            raise DataError(
                f"train.{key} asks for more held-out prompts than the file has "
                f"({len(prompts[should_call])}): {wanted[should_call]}",
                str(dataset.path),
            )
    return prompts[True] + prompts[False]


def evaluate_once(
    file: Path, student: nn.Module, dataset: KDDataset, config: Config, display: Display, step: int
) -> dict[str, Any]:
    """The evaluation in `file` if it was made at `step`; else a new one, which is written to `file`, and as CSV.

    Args:
        file: JSON, see `Evaluation.to_json`, and the `step`.
        student: the bare model, in training or evaluation mode.
        dataset: the held-out records.
        config: how many prompts, and how long answers may be.
        display: shows progress.
        step: the training step.

    Raises:
        DataError: the file is damaged, or there are fewer prompts than the config asks for.
        OSError: it cannot be read or written.
    """
    if file.exists():
        saved = read_document(file, name="evaluation", remedy="remove it, and it is made anew")
        if saved.get("step") == step:
            write_evaluation_csv(file, saved)
            return saved
    train = config.train
    prompts = choose_prompts(dataset, train.eval_prompts, train.eval_irrelevance_prompts)
    ends = dataset.turn_end_ids  # the last one is a saved student's end of sequence
    decoding = Decoding(eos_ids=ends[-1:], pad_id=ends[-1], max_new_tokens=train.eval_max_new_tokens)
    display.console.print("[bold]evaluation[/bold] by generation on held-out prompts")
    with display.working("evaluate", len(prompts)) as on_progress:
        evaluation = evaluate(
            student,
            prompts,
            dataset.tokenizer.decode,
            decoding,
            lambda done, tokens: on_progress(done, f"{tokens} tokens"),
            formats=dataset.formats,
        )
    result = {
        "schema_version": SCHEMA_VERSION,
        "kind": EVALUATION_KIND,
        "step": step,
        "fingerprints": _fingerprints(dataset, prompts),
        "decoding": {
            "mode": "free",
            "sampling": "greedy",
            "max_new_tokens": decoding.max_new_tokens,
            "formats": list(dataset.formats),
            "thinking": dataset.thinking,
            "eos_ids": sorted(decoding.eos_ids),
        },
        **evaluation.to_json(),
    }
    write_document(file, result)
    write_evaluation_csv(file, result)
    return result


def _fingerprints(dataset: KDDataset, prompts: Sequence[EvalPrompt]) -> dict[str, str]:
    """The hashes that a speed report gives for the same prompts and for the right answers that score them."""
    same = [
        SpeedPrompt(
            text=dataset.tokenizer.decode(list(prompt.ids)),
            tools=prompt.tools,
            needs_call=prompt.should_call,
            reference=prompt.reference_text,
            accepted=prompt.accepted,
        )
        for prompt in prompts
    ]
    return {"prompts": prompts_fingerprint(same), "truth": truth_fingerprint(same)}
