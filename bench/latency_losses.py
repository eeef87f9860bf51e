"""Do the latency losses shorten what a student *generates*? Small students, held-out prompts, every arm reported.

    python bench/latency_losses.py            # all arms, three seeds, one thread
    python bench/latency_losses.py --replot   # table and plot again, from the results file

Students are Llamas of two layers, trained by the recipe of `kdfast-train` on synthetic records (latency_records.py:
six tools, three of them offered in each prompt). A base student a seed learns to copy tool and arguments in another
format, without ever an end of turn; each arm starts from it. `kd.ce_teacher_weight` is 1, the sum of the default
weights of the main terms, so that the latency weights weigh what they weigh in a default run. Four experiments:

- A: cross-entropy never sees an end of turn. The length loss has to, so the objective takes these labels out of the
  batch that cross-entropy gets and leaves them in the one that the length loss gets (`NoTurnEnds`); all else is the
  trainer as it is.
- B: the same records with all ends of turn; only `kd.length_weight` differs.
- C: a teacher that rambles before calls and refusals alike, and refuses one due call of ten; only the early-tool
  weights differ.
- D: as B, but 19 of 20 answers were cut (`finish_reason: length`): an end of turn is seen in every twentieth row.

Answers are greedy, to 96 held-out prompts that need a call and 48 that must not get one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from kdfast._rust import find_tool_calls
from kdfast.config import config_from_dict
from kdfast.data import KDDataset
from kdfast.distributed.ranks import Ranks
from kdfast.evaluate import Decoding, EvalPrompt, generate
from kdfast.losses import IGNORE_INDEX, BatchPlan, plan_batch
from kdfast.recipes.train.evaluation import choose_prompts
from kdfast.recipes.train.objective import Batch, Objective
from kdfast.recipes.train.run import Run
from kdfast.scoring import score_answer, summarise
from kdfast.scoring.score import FORMATS
from kdfast.student import supervised_logits
from latency_records import TEMPLATE, Kind, write_records, write_tokenizer
from latency_report import write_report

RESULTS = Path(__file__).parent / "results"
ROWS, DUE, NOT_DUE, MAX_NEW_TOKENS = 4000, 96, 48, 128
SHAPES = [64, 96, 128, 192]
DATA: dict[str, Kind] = {"base": "base", "A": "plain", "B": "plain", "C": "rambling", "D": "cut"}
STEPS = {"base": 1600, "A": 200, "B": 200, "C": 400, "D": 300}
OFF = {"length_weight": 0.0, "early_tool_ce_weight": 0.0, "early_tool_prior_weight": 0.0}
SIZES = {"d_model": 96, "n_layers": 2, "n_heads": 4, "d_ff": 192, "tie_word_embeddings": True}


@dataclass(frozen=True)
class Arm:
    """One student a seed.

    Attributes:
        experiment: a key of `DATA`.
        name: in tables.
        kd: keys of the config's section `kd` that differ from a run without latency losses.
    """

    experiment: str
    name: str = "cross-entropy only"
    kd: Mapping[str, Any] = field(default_factory=dict)


ARMS = (
    Arm("A"),
    Arm("A", "length 0.05", {"length_weight": 0.05}),
    Arm("A", "length 0.5", {"length_weight": 0.5}),
    Arm("A", "length 0.05, quantile", {"length_weight": 0.05, "length_form": "quantile"}),
    Arm("A", "length 0.5, quantile", {"length_weight": 0.5, "length_form": "quantile"}),
    Arm("B"),
    Arm("B", "length 0.05", {"length_weight": 0.05}),
    Arm("B", "length 0.5", {"length_weight": 0.5}),
    Arm("D"),
    Arm("D", "length 0.05", {"length_weight": 0.05}),
    Arm("D", "length 0.5", {"length_weight": 0.5}),
    Arm("C"),
    Arm("C", "ce 0.01, prior 0.001", {"early_tool_ce_weight": 0.01, "early_tool_prior_weight": 0.001}),
    Arm("C", "ce 0.1, prior 0.1", {"early_tool_ce_weight": 0.1, "early_tool_prior_weight": 0.1}),
    Arm("C", "preamble 0.001", {"early_tool_preamble_weight": 0.001}),
    Arm("C", "preamble 0.01", {"early_tool_preamble_weight": 0.01}),
    Arm("C", "preamble 0.1", {"early_tool_preamble_weight": 0.1}),
)


class NoTurnEnds(Objective):
    """The objective of experiment A: cross-entropy never sees an end of turn, the length loss does."""

    def plan(self, batch: Batch, *, vocab_size: int, width: int) -> BatchPlan:
        """As always, but ends of turn weigh nothing among the labels of cross-entropy."""
        plan = super().plan(batch, vocab_size=vocab_size, width=width)
        rows = plan.rows
        if rows is None:
            return plan
        column = rows.columns["cross_entropy"]
        labels = rows.targets.labels[:, column.columns]
        ends = torch.isin(labels, torch.tensor(self.settings.eos_ids))
        columns = {
            **rows.columns,
            "cross_entropy": replace(column, weights=column.weights.masked_fill(ends, 0)),
        }
        rest = plan_batch(without_turn_ends(batch, self.settings.eos_ids), self.settings).counts
        counts = {
            name: rest[name] if name.startswith("ce_") else count for name, count in plan.counts.items()
        }
        return replace(plan, counts=counts, rows=replace(rows, columns=columns))


class WithoutTurnEnds(Run):
    """The recipe with that objective."""

    def _objective(self) -> Objective:
        given = super()._objective()
        return NoTurnEnds(settings=given.settings, num_steps=given.num_steps)


def without_turn_ends(batch: Batch, eos_ids: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """The batch with ends of turn unlabelled."""
    labels = batch["labels"]
    return {**batch, "labels": labels.masked_fill(torch.isin(labels, torch.tensor(eos_ids)), IGNORE_INDEX)}


def config(folder: Path, arm: Arm, seed: int) -> dict[str, dict[str, Any]]:
    """The config of an arm's run."""
    base = arm.experiment == "base"
    kd = {
        "kl_weight": 0.0,
        "ce_teacher_weight": 1.0,
        "ce_truth_weight": 0.0,
        "max_new_tokens": MAX_NEW_TOKENS,
    }
    run = f"base-{seed}" if base else f"arm{ARMS.index(arm)}-{seed}"
    steps = STEPS[arm.experiment]
    return {
        "arch": SIZES if base else {"init": str(folder / f"base-{seed}" / "student")},
        "data": {
            "train": str(folder / f"{DATA[arm.experiment]}.jsonl"),
            "tokenizer": str(folder / "tokenizer"),
            "template": str(folder / "template.jinja"),
            "shapes": SHAPES,
            "threads": 1,
        },
        "optimizer": {"learning_rate": 3e-3 if base else 1.5e-3, "warmup_steps": 30, "weight_decay": 0.05},
        "train": {
            "num_steps": steps,
            "micro_batch_size": 16,
            "checkpoint_every_steps": 0,
            "seed": seed,
            "device": "cpu",
            "threads": 1,
        },
        "kd": kd | OFF | dict(arm.kd),
        "io": {"run_dir": str(folder / run)},
    }


def train(folder: Path, arm: Arm, seed: int) -> Any:
    """The student of an arm, by the recipe of `kdfast-train`."""
    kind = WithoutTurnEnds if arm.experiment == "A" else Run
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run = kind(config_from_dict(config(folder, arm, seed)), Ranks(), resume=False)
        code = run.run()
    if code:
        raise SystemExit(f"{arm}: exit code {code}\n{printed.getvalue()}")
    return run.student


def first_call(ids: list[int], decode: Callable[[list[int]], str]) -> float:
    """Tokens until the first call is complete; inf without one."""
    if not find_tool_calls(decode(ids), FORMATS):
        return math.inf
    return next(n for n in range(1, len(ids) + 1) if find_tool_calls(decode(ids[:n]), FORMATS))


def quantile(values: list[float], share: float) -> float:
    """The smallest value that at least this share of them does not exceed: inf stays inf."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


def figures(
    prompts: list[EvalPrompt], answers: list[list[int]], decode: Callable[[list[int]], str]
) -> dict[str, float]:
    """What answers come to; lengths in tokens, without the end of turn."""
    pairs = list(zip(prompts, answers, strict=True))
    scores = [
        score_answer(
            decode(ids),
            json.loads(prompt.tools),
            accepted=prompt.accepted,
            reference_text=prompt.reference_text,
            should_call=prompt.should_call,
        )
        for prompt, ids in pairs
    ]
    shares = {name: share.fraction or 0.0 for name, share in summarise(scores).items()}
    lengths = [len(ids) for ids in answers]
    waits = [first_call(ids, decode) for prompt, ids in pairs if prompt.should_call]
    return {
        "exact_match": shares["exact_match"],
        "false_calls": shares["false_calls"],
        "missed_calls": sum(wait == math.inf for wait in waits) / len(waits),
        "length_median": statistics.median(lengths),
        "length_mean": statistics.fmean(lengths),
        "length_mean_due": statistics.fmean(len(ids) for prompt, ids in pairs if prompt.should_call),
        "length_mean_not_due": statistics.fmean(len(ids) for prompt, ids in pairs if not prompt.should_call),
        "never_ended": sum(length >= MAX_NEW_TOKENS for length in lengths) / len(lengths),
        "first_call_p50": quantile(waits, 0.5),
        "first_call_p95": quantile(waits, 0.95),
    }


def token_accuracy(student: Any, data: KDDataset) -> float:
    """Share of the held-out answers' tokens, ends of turn left out, that are the student's likeliest."""
    right = total = 0
    with torch.inference_mode():
        for start in range(0, len(data), 32):
            batch = data.collate(range(start, min(start + 32, len(data))))
            labels = without_turn_ends(batch, tuple(data.turn_end_ids[-1:]))["labels"]
            mask = labels != IGNORE_INDEX
            best = supervised_logits(student, batch["input_ids"], batch["attention_mask"], mask).argmax(1)
            right, total = right + int((best == labels[mask]).sum()), total + len(best)
    return right / total


def measure(student: Any, data: KDDataset) -> dict[str, float]:
    """Generates, scores and counts."""
    prompts, end = choose_prompts(data, DUE, NOT_DUE), data.turn_end_ids[-1]
    decoding = Decoding(eos_ids=[end], pad_id=end, max_new_tokens=MAX_NEW_TOKENS, batch_size=48)
    answers = generate(student, [prompt.ids for prompt in prompts], decoding)
    student.eval()
    return figures(prompts, answers, data.tokenizer.decode) | {
        "token_accuracy": token_accuracy(student, data)
    }


def prepare(folder: Path) -> dict[str, KDDataset]:
    """Writes records, tokenizer and template; gives the held-out data of each experiment."""
    write_tokenizer(folder / "tokenizer")
    (folder / "template.jinja").write_text(TEMPLATE, encoding="utf-8")
    held_out = {}
    for number, kind in enumerate(dict.fromkeys(DATA.values())):
        write_records(folder / f"{kind}.jsonl", number * 10**6, 2 * ROWS if kind == "base" else ROWS, kind)
        file = write_records(folder / f"{kind}.held-out.jsonl", 10**7, 240, kind, held_out=True)
        held_out[kind] = KDDataset(
            file, folder / "tokenizer", shapes=SHAPES, template=str(folder / "template.jinja"), threads=1
        )
    return {experiment: held_out[kind] for experiment, kind in DATA.items()}


def teacher_figures(data: KDDataset) -> dict[str, float]:
    """The same figures of the teacher's own answers to the held-out prompts."""
    prompts = choose_prompts(data, DUE, NOT_DUE)
    return figures(prompts, [data.encode(prompt.reference_text) for prompt in prompts], data.tokenizer.decode)


def run_all(seeds: int, experiments: str, out: Path) -> None:
    """Trains and measures every arm; the results file is written anew after each, so that a crash loses one arm."""
    torch.set_num_threads(1)
    setting = {"rows": ROWS, "steps": STEPS, "student": SIZES, "due": DUE, "not_due": NOT_DUE}
    setting |= {"max_new_tokens": MAX_NEW_TOKENS, "seeds": seeds, "torch": torch.__version__}
    setting |= {"system": platform.system(), "python": platform.python_version()}
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        held_out = prepare(folder)
        teachers = {name: teacher_figures(held_out[name]) for name in experiments}
        document: dict[str, Any] = {"setting": setting, "teachers": teachers, "runs": []}
        for seed in range(seeds):
            train(folder, Arm("base"), seed)
            for arm in (arm for arm in ARMS if arm.experiment in experiments):
                started = time.process_time()
                student = train(folder, arm, seed)
                seconds = time.process_time() - started
                found = measure(student, held_out[arm.experiment])
                run = {"arm": asdict(arm), "seed": seed, "train_cpu_s": round(seconds, 1), **found}
                document["runs"].append(run)
                out.write_text(json.dumps(finite(document), indent=1) + "\n")
                print(seed, arm.experiment, arm.name, {k: round(v, 3) for k, v in found.items()}, flush=True)


def finite(value: Any) -> Any:
    """The value with inf as text, which JSON can hold."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return "inf" if value == math.inf else value


def main() -> None:
    """Runs everything and writes bench/results/latency_losses.{json,md,svg}."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--experiments", default="ABCD")
    parser.add_argument("--out", type=Path, default=RESULTS / "latency_losses.json")
    parser.add_argument("--replot", action="store_true", help="only write table and plot again")
    options = parser.parse_args()
    if not options.replot:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        run_all(options.seeds, options.experiments, options.out)
    write_report(options.out)


if __name__ == "__main__":
    main()
