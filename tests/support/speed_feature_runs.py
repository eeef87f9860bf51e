"""A run with every speed feature on, from the teacher's answers to the gates; and its losses, computed the slow way."""

from __future__ import annotations

import contextlib
import io
import json
import math
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import naive_latency
import tiny_run
import torch
import yaml
from naive_quantize import RULES
from qat_runs import lines
from safetensors.torch import load_file, save_file
from torch import Tensor

from kdfast.cli.door import exit_code, messages
from kdfast.config import Config, load_config
from kdfast.data import KDDataset, collate_kd_batch
from kdfast.errors import KdfastError, TeacherError
from kdfast.losses import LossSettings
from kdfast.losses.latency.length_aware_kd_loss import LengthOptions
from kdfast.pretrained import load_causal_lm
from kdfast.quantized import read_table
from kdfast.recipes.first_look.stores import only_store
from kdfast.recipes.requests import TeachRequest
from kdfast.recipes.teach.run import run
from kdfast.recipes.train.events import TrainEvent
from kdfast.recipes.train.objective import Objective
from kdfast.recipes.train.result import TrainResult
from kdfast.shapes import StepSampler
from kdfast.teacher.api.fake_replies import FakeRequest
from kdfast.teacher.api.fake_server import FakeServer
from kdfast.teacher.api.journal import Answer, Journal

Batch = Mapping[str, Tensor]
KEY = "kd-secret-0123456789"
STEPS, QAT_FROM = 12, 6
SEED = 2
"""With this seed the steps before quantisation have rows for every term, and all steps together every shape."""
KD = {
    "kl_weight": 0.5, "kl_final_weight": 0.1, "ce_teacher_weight": 0.3, "ce_truth_weight": 0.2,
    "length_weight": 0.05, "early_tool_ce_weight": 0.1, "early_tool_prior_weight": 0.05,
    "early_tool_preamble_weight": 0.04, "early_tool_negative_weight": 0.03, "early_tool_warmup_steps": 4,
}  # fmt: skip
TERMS = tuple(name.removesuffix("_weight") for name in KD if name.endswith("_weight") and "final" not in name)
SECTIONS: dict[str, dict[str, Any]] = {
    "arch": {"d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_ff": 64},
    "data": {"shapes": [128, 320, 384], "shape_probs": "production", "shape_upweight_every": 4, "threads": 1},
    "teacher": {"k": 8, "device": "cpu", "max_new_tokens": 160},
    "api": {"model": "fake", "concurrency": 8},
    "price": {"input": 1.0, "output": 2.0},
    "optimizer": {"learning_rate": 3e-3, "warmup_steps": 2},
    "train": {
        "num_steps": STEPS, "seed": SEED, "micro_batch_size": 2, "gradient_accumulation_steps": 2,
        "device": "cpu", "threads": 1, "validate_every_steps": 3, "checkpoint_every_steps": 3,
        "keep_last": STEPS, "eval_prompts": 2, "eval_irrelevance_prompts": 1, "eval_max_new_tokens": 8,
    },
    "kd": KD,
    "quant": {
        "enabled": True, "format": "q4_0", "start_fraction": 0.5, "min_steps": 1, "warmup_steps": 2,
        "learning_rate": 1e-3, "self_kd_weight": 0.25,
    },
    "speed": {"every_validations": 2, "prompts": 6, "warmup": 0},
    "gates": {"ttfa_p95_tokens": 40.0},
}  # fmt: skip
FAULTS = {
    0: "rate_limit_ms", 1: "error_500", 2: "reset", 3: "truncated_body", 4: "error_503", 5: "close",
    6: "gzip", 7: "reset_after_body", 8: "cut_chunks", 9: "rate_limit_seconds", 10: "html_502",
}  # fmt: skip
"""What the server does when it sees the prompt of this number for the first time; it answers the second time."""
LOST = 14
"""The number of the prompt whose answer is paid for and cannot be read."""


def write_prompts(path: Path, numbers: range) -> Path:
    """Prompts that end with their number, three of four with a tool and a call as their truth."""
    made = []
    for number in numbers:
        one = tiny_run.record(number)
        one.pop("teacher_text", None)
        one["messages"][0]["content"] += f" ({number})"
        if number % 4 == 3:
            del one["tools"]
        made.append(json.dumps(one) + "\n")
    path.write_text("".join(made), encoding="utf-8")
    return path


def make_sure_of_itself(model: Path) -> None:
    """Makes the weights of a random model's embeddings larger, so that its distributions are far from uniform."""
    file = model / "model.safetensors"
    weights = load_file(file)
    weights["model.embed_tokens.weight"] *= 20
    save_file(weights, file, {"format": "pt"})


def write_given(path: Path) -> Path:
    """Two records that somebody else's teacher answered: one talks before its call, one talks and does not call."""
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    made = []
    for number, text in ((20, f"Let me see. {call}"), (21, "Let me see. I think that it rains.")):
        one = {name: tiny_run.record(number)[name] for name in ("messages", "tools")}
        due = {"tool_should_be_used": True, "required_fields_present": True}
        made.append(json.dumps({**one, "teacher_text": text, **due}) + "\n")
    path.write_text("".join(made), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Project:
    """A folder with all files of such a run."""

    path: Path

    @classmethod
    def write(cls, path: Path, prompts: int) -> Project:
        """Writes prompts, given and held-out records, a tokenizer, a teacher and the config."""
        project, model = cls(path), tiny_run.write_teacher(path / "teacher")
        make_sure_of_itself(model)
        write_prompts(project.prompts, range(prompts))
        validation = str(tiny_run.write_records(path / "validation.jsonl", range(100, 106)))
        train = [str(project.out), str(write_given(path / "given.jsonl"))]
        files: dict[str, dict[str, Any]] = {
            "data": {"train": train, "validation": validation, "tokenizer": str(model)},
            "teacher": {"model": str(model), "store": str(path / "store")},
            "io": {"run_dir": str(path / "run")},
        }
        sections = {name: {**SECTIONS.get(name, {}), **files.get(name, {})} for name in {**SECTIONS, **files}}
        (path / "config.yaml").write_text(yaml.safe_dump(sections), encoding="utf-8")
        return project

    @property
    def prompts(self) -> Path:
        return self.path / "prompts.jsonl"

    @property
    def out(self) -> Path:
        return self.path / "answers.jsonl"

    @property
    def ledger(self) -> Ledger:
        return Ledger.read(self.path / "answers.jsonl.db")

    def asking(self, server: FakeServer, *more: str) -> Config:
        """The config of the teacher behind the server."""
        files = ("teacher.kind=api", f"teacher.prompts={self.prompts}", f"teacher.out={self.out}")
        return self.config(*files, f"api.base_url={server.url}", *more)

    def config(self, *overrides: str) -> Config:
        """The config of the local teacher that scores, and of training."""
        return load_config(self.path / "config.yaml", list(overrides))

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text(encoding="utf-8").splitlines()]


@dataclass(frozen=True)
class Ledger:
    """What a journal says of the attempts at requests, and of what they cost in millionths.

    Attributes:
        states: how many attempts ended how.
        worst: the worst case of all attempts whose cost nobody knows.
        charged: what counts against the budget.
        answers: the final answers.
    """

    states: Counter[str]
    worst: int
    charged: int
    answers: list[Answer]

    @classmethod
    def read(cls, path: Path) -> Ledger:
        with sqlite3.connect(path) as database:
            rows = list(database.execute("SELECT state, worst_micro, cost_micro FROM attempt"))
            (charged,) = database.execute("SELECT charged_micro FROM total").fetchone()
        with Journal(path, read_only=True) as journal:
            answers = list(journal.all_answers())
        worst = sum(worst for _, worst, cost in rows if cost is None)
        return cls(Counter(state for state, *_ in rows), worst, charged, answers)


def teach(config: Config, **request: Any) -> tuple[int, str]:
    """What `kdfast teach` does, without the preflight: its exit code, and all that it said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = run(config, TeachRequest(**request))
        except TeacherError as error:
            code = exit_code(error)
            said.write("\n".join(messages(error)))
    return code, said.getvalue()


def faulty_server() -> FakeServer:
    """A server with these faults."""

    def choose(request: FakeRequest) -> str:
        number = int(request.text.rpartition("(")[2].rstrip(")"))
        first = FAULTS.get(number, "ok") if request.times_seen == 0 else "ok"
        return "truncated_json" if number == LOST else first

    return FakeServer(choose, wait_s=0.01)


@dataclass
class Recorder:
    """A callback that keeps the student's weights after each step, and the checkpoints.

    Attributes:
        weights: updates done -> name -> tensor; those of 0 are the first ones.
        paths: step -> the checkpoint that was written.
    """

    weights: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    paths: dict[int, Path] = field(default_factory=dict)

    def __call__(self, event: TrainEvent) -> None:
        if event.kind == "checkpoint" and event.path is not None:
            self.paths[event.step] = event.path
        if event.kind == "step" or (event.kind, event.step) == ("validation", 0):
            state = event.student.state_dict()
            self.weights[event.step] = {name: one.clone() for name, one in state.items()}


@dataclass(frozen=True)
class Whole:
    """A run that nothing disturbed, with what the slow twins need of it."""

    project: Project
    path: Path
    result: TrainResult
    recorder: Recorder

    @cached_property
    def data(self) -> KDDataset:
        data = self.project.config().data
        return KDDataset.from_config(data, data.train_files, only_store(self.project.path / "store"))

    @cached_property
    def probe(self) -> dict[str, Tensor]:
        """The held-out rows on which quantisation is checked."""
        data = self.project.config().data
        assert data.validation is not None
        rows = KDDataset.from_config(data, data.validation)
        return collate_kd_batch(rows.__getitems__(list(range(min(8, len(rows))))))

    @cached_property
    def settings(self) -> LossSettings:
        return Objective.of(self.data, self.project.config().kd).settings

    @cached_property
    def train(self) -> list[dict[str, Any]]:
        """The lines of the steps 1, 2, ..."""
        return lines(self.path, "train")

    @cached_property
    def formats(self) -> dict[str, str]:
        """The format of each quantised matrix."""
        return {name: one.format for name, one in read_table(self.path / "student").tensors.items()}

    def plan(self, step: int) -> tuple[int, list[int]]:
        """Shape and rows of a step (0-based), from a sampler of its own."""
        options: dict[str, Any] = {"rows_per_step": 4, "seed": SEED, "upweight_every": 4}
        return StepSampler(self.data.lengths, [128, 320, 384], probs="production", **options).plan(step)

    def batches(self, step: int) -> list[dict[str, Tensor]]:
        """The micro-batches of a step (0-based)."""
        rows = self.plan(step)[1]
        return [collate_kd_batch(self.data.__getitems__(rows[first : first + 2])) for first in (0, 2)]

    def model(self, weights: Mapping[str, Tensor]) -> Any:
        """A model of transformers with these weights, in float64."""
        loaded = load_causal_lm(
            self.recorder.paths[3], dtype=torch.float64, error=KdfastError, name="student"
        )
        loaded.load_state_dict({name: one.double() for name, one in weights.items()})
        return loaded.eval()

    def rounded(self, step: int) -> dict[str, Tensor]:
        """The weights after so many updates, each matrix rounded by the slow twin of its format."""
        weights = self.recorder.weights[step]
        return {**weights, **{name: rounded(weights[name], one) for name, one in self.formats.items()}}

    def slow_step(
        self, step: int, model: Any, *, hinge_open: bool, earlier: Any = None
    ) -> tuple[dict[str, float], float]:
        """The mean of each term at a step (0-based), and that of the excess of the answers' expected lengths."""
        parts, excess = [], []
        for batch in self.batches(step):
            full = logits_of(model, batch)
            parts.append(slow_terms(full, batch, self.settings, hinge_open=hinge_open))
            if earlier is not None:
                parts[-1]["self_kl"] = slow_self_kl(full, logits_of(earlier, batch), batch)
            excess.append(slow_terms(full, batch, self.settings, hinge_open=True)["length"])
        return means_of(parts), sum(total for total, _ in excess) / sum(count for _, count in excess)


def rounded(weight: Tensor, format_name: str) -> Tensor:
    """Codes times scales of a matrix, one block of 32 after the other, in float64."""
    blocks = [RULES[format_name](block) for block in weight.reshape(-1, 32).tolist()]
    products = [[code * scale for code in codes] for codes, scale in blocks]
    return torch.tensor(products, dtype=torch.float64).view_as(weight)


def expected_rate(step: int) -> float:
    """The learning rate by hand: a warm-up and a cosine to a tenth; under quantisation another, to 0."""
    if step < 2:
        return 3e-3 * (step + 1) / 2
    if step < QAT_FROM:
        return 3e-4 + (3e-3 - 3e-4) * (1 + math.cos(math.pi * (step - 2) / (STEPS - 3))) / 2
    done = step - QAT_FROM
    return 1e-3 * (done + 1) / 2 if done < 2 else 1e-3 * (1 + math.cos(math.pi * (done - 2) / 4)) / 2


def logits_of(model: Any, batch: Batch) -> Tensor:
    """[B,T,V] of a model of transformers, in which kdfast has no hand."""
    with torch.no_grad():
        found: Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return found


def slow_terms(
    full: Tensor, batch: Batch, settings: LossSettings, *, hinge_open: bool
) -> dict[str, tuple[float, float]]:
    """Term -> (sum, count) of a micro-batch, from logits [B,T,V] in float64."""
    kd, found = settings.kd, {}
    logq, learned = full.log_softmax(-1), batch["labels"] != -100  # [B,T,V], [B,T]
    weight = 1 + kd.name_weight * batch["tool_name_mask"].double() + kd.args_weight * batch["tool_args_mask"]
    for number, name in enumerate(("ce_teacher", "ce_truth")):
        own = learned & (batch["source"] == number)[:, None]
        nll = -logq[own].gather(1, batch["labels"][own][:, None])[:, 0]  # [N]
        found[name] = (float((weight[own] * nll).sum()), float(weight[own].sum()))
    known = learned & batch["teacher_topk_mask"]
    ids, logp, tail = (batch[f"teacher_{one}"][known] for one in ("topk_ids", "topk_logp", "tail_logp"))
    p = torch.cat([logp, tail[:, None]], 1).double().softmax(1)  # [N,K+1]: the last class is any other id
    q = logq[known].exp().gather(1, ids.long())  # [N,K]
    q = torch.cat([q, 1 - q.sum(1, keepdim=True)], 1)
    found["kl"] = (float((torch.xlogy(p, p) - p * q.log()).sum()), float(known.sum()))
    found["length"] = _slow_length(logq, batch, settings, hinge_open)
    return found | _slow_early_parts(logq, batch, settings)


def _slow_length(logq: Tensor, batch: Batch, settings: LossSettings, hinge_open: bool) -> tuple[float, float]:
    """(Sum, count) of log(E/L) - log(1 + hinge), from log-probabilities [B,T,V]."""
    kd, found = settings.kd, []
    options = LengthOptions(hinge=kd.length_hinge, max_new_tokens=kd.max_new_tokens)
    ends = logq[..., list(settings.eos_ids)].exp().sum(-1)  # [B,T]
    odds = (ends / (1 - ends)).log()
    for b, gates in enumerate(naive_latency.length_rows(batch, settings.eos_ids)):
        start, length = int(batch["response_start"][b]), int(batch["response_length"][b])
        at = {token: float(odds[b, start - 2 + token]) for token in gates}
        found.append(naive_latency.excess(at, length, options))
    return sum(found) * hinge_open, float(len(found))


def _slow_early_parts(logq: Tensor, batch: Batch, settings: LossSettings) -> dict[str, tuple[float, float]]:
    """Part of the early tool-call loss -> (sum, count), from log-probabilities [B,T,V]."""
    found: dict[str, list[float]] = {"ce": [], "prior": [], "negative": [], "preamble": []}
    opens = logq[..., list(settings.opening_ids)].exp().sum(-1)  # [B,T]
    for b, plan in enumerate(naive_latency.early_rows(batch)):
        found["ce"] += [-float(logq[b, t, token]) for t, token in plan["targets"].items()]
        found["prior"] += [-math.log(opens[b, t]) for t in plan["prior"]]
        found["negative"] += [-math.log(1 - opens[b, t]) for t in plan["negative"]]
        if plan["preamble"]:  # the expected number of tokens before the call
            found["preamble"].append(float((1 - opens[b, plan["preamble"]]).cumprod(0).sum()))
    return {f"early_tool_{name}": (math.fsum(values), float(len(values))) for name, values in found.items()}


def slow_self_kl(full: Tensor, earlier: Tensor, batch: Batch) -> tuple[float, float]:
    """(Sum, count) of KL(earlier || now) over what is learned, from logits [B,T,V] of both in float64."""
    learned = batch["labels"] != -100
    logp, logq = earlier[learned].log_softmax(-1), full[learned].log_softmax(-1)
    return float((logp.exp() * (logp - logq)).sum()), float(learned.sum())


def means_of(parts: Sequence[Mapping[str, tuple[float, float]]]) -> dict[str, float]:
    """The mean of each term over the micro-batches of a step; a term that counts nothing has none."""
    sums = {name: [math.fsum(part[name][i] for part in parts) for i in (0, 1)] for name in parts[0]}
    return {name: total / count for name, (total, count) in sums.items() if count}


def lowest_cosine(plain: Any, other: Any, batch: Batch) -> float:
    """The mean cosine of the hidden states of two models over what is learned, of the worst layer."""
    mask, asked = batch["labels"] != -100, {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        states = [model(**asked, output_hidden_states=True).hidden_states for model in (plain, other)]
    pairs = zip(*states, strict=True)
    return min(float(torch.cosine_similarity(one[mask], two[mask], dim=-1).mean()) for one, two in pairs)
