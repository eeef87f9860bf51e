"""Checks of group `teacher`: its model, its store and its journal are opened and read as the commands will."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from kdfast import _rust
from kdfast.config import Config
from kdfast.data import KDDataset
from kdfast.data.token_rows import Reader
from kdfast.errors import ConfigError, KdfastError, TeacherError
from kdfast.model_files import converted_directory
from kdfast.pretrained import check_sizes, load_model_config, resolve_device
from kdfast.recipes.first_look.stores import holds_stores, only_store
from kdfast.recipes.preflight.check import Check, Finding, failed, passed, skipped, warned
from kdfast.recipes.preflight.facts import MOST_PARAMETERS, Sample
from kdfast.recipes.preflight.looking.teacher_weights import tensors, weight_files
from kdfast.recipes.preflight.made.machine import Machine
from kdfast.recipes.preflight.made.small_project import reads_store
from kdfast.recipes.teach.plan import plan as plan_requests
from kdfast.recipes.teach.prompt_rows import prompt_rows
from kdfast.recipes.train.data import teacher_file
from kdfast.recipes.train.live_teacher import shared_ids
from kdfast.student import read_pieces
from kdfast.teacher import LocalTeacher, Scores, ScoringRow
from kdfast.teacher.api.journal import Journal
from kdfast.teacher.local.plan import Plan, plan_teaching
from kdfast.teacher.prompts import read_prompts

_MOST_ROWS = 50_000
_MOST_HASHED = 4e9
"""Bytes of weights: the hash of larger ones takes too long."""
_SCORED = 2
_PREFIX = 16
"""Tokens of the demonstrations that are put before the scored rows: enough to see that the model can take them."""
_BEFORE, _AFTER = 40, 16
"""Tokens of a prompt and of its answer that are read: a whole row takes a teacher of 135 M parameters seconds."""
_SLACK = 1e-3
_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_STORED_TEMPERATURE = 1.0
_TEACH = "run `kdfast teach CONFIG`, or set the keys of section teacher to what they were when it was written"
_FETCH = "fetch the model again, or save it again, and see that teacher.model names its directory"


def local_model_is_read(
    config: Config, train_rows: KDDataset, held_out_rows: KDDataset | None, sample: Sample
) -> Finding:
    """Reads the teacher's config and the headers of its weights, and holds its context against what it will read."""
    directory, why = _directory(config)
    if directory is None:
        return skipped(why)
    model = load_model_config(directory, error=TeacherError, name="teacher.model")
    try:
        shared_ids(config, directory)
    except KdfastError:
        return skipped("its vocabulary is another one: see tokens.vocabularies_agree")
    longest = _longest_row(config, directory, train_rows, held_out_rows, sample)
    check_sizes(
        model, ids=len(read_pieces(directory)), longest=longest, error=ConfigError, name="teacher.model"
    )
    text = model.get_text_config()
    limit = getattr(text, "max_position_embeddings", None)
    answered = _longest_prompt(config)
    if limit is not None and answered > limit:
        return failed(
            f"the longest prompt and an answer of full length have {answered} tokens, and the teacher reads {limit}",
            "shorten the prompts, lower teacher.max_new_tokens, or use a teacher that reads more",
        )
    try:
        found = tensors(directory)
    except SafetensorError as error:
        return failed(f"the weights of {directory} cannot be read ({error})", _FETCH)
    there = {int(layer[1]) for name in found if (layer := _LAYER.match(name))}
    if there != set(range(text.num_hidden_layers)):
        return failed(
            f"config.json says {text.num_hidden_layers} layers, and the weights have {_few(sorted(there))}",
            _FETCH,
        )
    size = sum(one.numbers for one in found.values()) / 1e6
    reads = max(longest, answered)
    return passed(
        f"{len(there)} layers and {size:,.1f} M numbers are there; of the {limit or 'any number of'} tokens that it"
        f" reads, at most {reads} are used"
    )


def scores_some_rows(
    config: Config, train_rows: KDDataset, sample_rows: KDDataset, machine: Machine, sample: Sample
) -> Finding:
    """Loads the teacher as `kdfast teach` does, and lets it score two short rows."""
    directory, why = _directory(config)
    if directory is None:
        return skipped(why)
    device = resolve_device(config.teacher.device, key="teacher.device").type
    dtype = "fp32" if device == "cpu" else config.teacher.dtype
    try:
        numbers = sum(one.numbers for one in tensors(directory).values())
    except SafetensorError as error:
        return skipped(f"teacher.local_model_is_read says what is wrong with its weights: {error}")
    large = _too_large(numbers, numbers * (4 if dtype == "fp32" else 2), machine)
    if large:
        return skipped(large)
    plan = _plan(config, directory, train_rows, sample)
    rows = list(_short_rows(sample_rows))
    teacher = LocalTeacher(directory, device=config.teacher.device, dtype=dtype)
    scored = [
        scores
        for batch in teacher.score(rows, plan.wanted, prefix_ids=plan.prefix_ids[:_PREFIX])
        for _, scores in batch
    ]
    tokens = sum(len(scores.topk_logp) for scores in scored)
    wrong = sum(_wrong(scores) for scores in scored)
    if wrong:
        return failed(
            f"{wrong} of {tokens} scored tokens have no distribution: a number is NaN, or the masses exceed 1",
            _FETCH,
        )
    noted = (
        ""
        if dtype == config.teacher.dtype
        else f", in fp32 instead of {config.teacher.dtype}, which is slow here"
    )
    mass = min(float(np.exp(scores.topk_logp).sum(1).min()) for scores in scored)
    return passed(
        f"{numbers / 1e6:,.1f} M parameters scored {tokens} tokens of {len(scored)} rows on {device}{noted}; the"
        f" likeliest {plan.wanted.k} ids hold at least {mass:.3f}"
    )


def _too_large(numbers: int, needed: int, machine: Machine) -> str:
    """Why a teacher is not loaded; "" = it is."""
    if numbers > MOST_PARAMETERS:
        most = MOST_PARAMETERS / 1e6
        return f"it has {numbers / 1e6:,.0f} M parameters: only a teacher of up to {most:,.0f} M is loaded"
    free = machine.memory_available
    if 2 * needed > free:
        return f"it needs {needed / 1e9:.1f} GB, more than half of the {free / 1e9:.1f} GB that are free"
    return ""


def store_knows_the_rows(config: Config, train_rows: KDDataset, sample: Sample) -> Finding:
    """Opens the teacher's log-probabilities as training does, and looks for the training rows in them."""
    if not reads_store(config):
        return skipped("no enabled loss reads stored log-probabilities")
    if sample.asked:
        return _not_written(config) or skipped(
            "the answers are still to come, and with them their log-probabilities"
        )
    directory = config.teacher.store
    if directory is None:
        return _coverage(config, train_rows, train_rows.teacher, frozenset(), "")
    if not (directory.is_file() or holds_stores(directory)):
        return _not_written(config) or skipped("teacher.store is not written yet: kdfast teach writes it")
    shown: frozenset[int] = frozenset()
    note = ""
    if config.teacher.model is None:
        file = only_store(directory)
    else:
        model, why = _converted(config.teacher.model)
        if model is None:
            return skipped(why)
        size = sum(path.stat().st_size for path in weight_files(model))
        if size > _MOST_HASHED:
            file, note = (
                only_store(directory),
                f"; not compared with the teacher's {size / 1e9:.1f} GB of weights",
            )
        else:
            file = teacher_file(config, directory, train_rows)
        shown = _plan(config, model, train_rows, sample).shown
    return _coverage(config, train_rows, _rust.TeacherStore.open(file), shown, note)


def _not_written(config: Config) -> Finding | None:
    """What is wrong with a store that `kdfast teach` is going to write; None = nothing."""
    kd = config.kd
    teacher_writes = config.teacher.store is not None and config.teacher.model is not None
    if (
        teacher_writes
        and kd.kl_weight > 0
        and not config.teacher.live
        and kd.temperature != _STORED_TEMPERATURE
    ):
        return failed(
            f"kdfast teach writes log-probabilities of the temperature {_STORED_TEMPERATURE}, and kd.temperature is"
            f" {kd.temperature}",
            f"set kd.temperature to {_STORED_TEMPERATURE}, or teacher.live to true",
        )
    return None


def _coverage(
    config: Config, rows: KDDataset, store: _rust.TeacherStore | None, shown: frozenset[int], note: str
) -> Finding:
    if store is None:
        return failed(
            f"none of {len(rows)} training rows carries log-probabilities",
            "ask again with api.top_logprobs, or set kd.kl_weight to 0",
        )
    kd, written = config.kd, store.logprob_temperature
    if kd.kl_weight > 0 and not config.teacher.live and kd.temperature != written:
        return failed(
            f"the log-probabilities are of the temperature {written}, and kd.temperature is {kd.temperature}",
            f"set kd.temperature to {written}",
        )
    step = 1 + (len(rows) - 1) // _MOST_ROWS
    looked_at = [row for row in range(0, len(rows), step) if row not in shown]
    known: NDArray[np.bool_] = store.contains(rows.keys(store.fingerprint)[looked_at])
    count, of = int(known.sum()), len(looked_at)
    seen = f"{count} of {of} {'rows' if step == 1 else 'looked-at rows'} scored{note}"
    damaged = store.audit() if len(store) <= _MOST_ROWS else []
    if damaged:
        return failed(
            f"{len(damaged)} of {len(store)} rows of the store are damaged: {store.path}",
            "remove this file, and run `kdfast teach CONFIG`",
        )
    torn = f"; the last {store.torn_bytes} bytes are torn" if store.torn_bytes else ""
    if not count:
        return failed(f"{seen}{torn}: {store.path}", _TEACH)
    if count < of:
        return warned(
            f"{seen}{torn}: the others are trained without the teacher",
            "run `kdfast teach CONFIG`, which goes on where it left off",
        )
    left_out = f"; {len(shown)} demonstrations are not" if shown else ""
    return passed(f"{seen}, {store.k} ids a token{left_out}")


def journal_is_read(config: Config) -> Finding:
    """Opens the journal; of a replay, counts the prompts that it answers."""
    files = config.teacher.files
    if files is None:
        return skipped("there are no teacher.prompts: no journal is read")
    if not files.journal.exists():
        if config.teacher.kind == "replay":
            return failed(
                f"there is no journal to replay: {files.journal}",
                "set teacher.journal to the file of the job that asked",
            )
        return skipped("there is no journal yet: kdfast teach writes it")
    with Journal(files.journal, read_only=True) as journal:
        answered = {one for page in journal.pages("answer IS NOT NULL") for one in page}
    if config.teacher.kind != "replay":
        return passed(f"the journal opens, and holds {len(answered)} answers")
    return _of_replay(answered, [one.request.hash for one in plan_requests(config, files).asked])


def _of_replay(answered: set[str], asked: Sequence[str]) -> Finding:
    found = sum(one in answered for one in asked)
    seen = f"the journal answers {found} of {len(asked)} requests"
    if not found:
        return failed(
            f"{seen}, and holds {len(answered)} other answers",
            "take the teacher (api.base_url, api.model or teacher.model), the prompts and the settings of the job that"
            " asked, or its teacher.journal",
        )
    if found < len(asked):
        return warned(
            f"{seen}: the others are left out", "set teacher.kind to that of the job, to ask them, too"
        )
    return passed(seen)


def _directory(config: Config) -> tuple[Path | None, str]:
    """The teacher's directory; None and why, where no model of this machine answers, scores or runs."""
    teacher = config.teacher
    if teacher.model is None:
        return None, "no teacher.model is named"
    answers = teacher.kind == "local" and teacher.files is not None
    if not (answers or teacher.live or _scores(config)):
        return None, "teacher.model neither answers, nor scores, nor runs beside the student"
    return _converted(teacher.model)


def _scores(config: Config) -> bool:
    return config.teacher.store is not None and config.teacher.kind == "local"


def _converted(model: Path) -> tuple[Path | None, str]:
    if model.suffix.lower() != ".gguf":
        return model, ""
    directory = converted_directory(model)
    if directory.is_dir():
        return directory, ""
    return None, f"it is not converted yet, and the first `kdfast teach` does that: {model}"


def _plan(config: Config, directory: Path, rows: KDDataset, sample: Sample) -> Plan:
    """What the teacher is asked, but for its fingerprint; who is shown is open while answers are to come."""
    settings = config.teacher
    if settings.store is None or sample.asked:
        settings = replace(settings, demonstrations=0)
    return plan_teaching(settings, "", rows, shared_ids(config, directory))


def _longest_row(
    config: Config, directory: Path, train: KDDataset, held_out: KDDataset | None, sample: Sample
) -> int:
    """Tokens of the longest row that the teacher scores, with the demonstrations before it."""
    if not (_scores(config) or config.teacher.live):
        return 0
    longest = max(int(rows.lengths.max(initial=0)) for rows in (train, held_out) if rows is not None)
    return len(_plan(config, directory, train, sample).prefix_ids) + longest


def _longest_prompt(config: Config) -> int:
    """Tokens of the longest prompt and of the longest answer to it; 0 = this teacher is not asked."""
    files, most = config.teacher.files, config.teacher.max_new_tokens
    if config.teacher.kind != "local" or files is None:
        return 0
    prompts = read_prompts(files.prompts, config.data, {})
    with prompt_rows(prompts, Reader.of(config.data), most) as rows:
        return most + max((len(rows.ids(prompt)) for prompt in rows.prompts), default=0)


def _short_rows(rows: KDDataset) -> Iterator[ScoringRow]:
    """Where the answer begins in the shortest rows that have something to score."""
    keys, found = rows.keys("preflight"), 0
    for index in np.argsort(rows.lengths, kind="stable"):
        supervised = rows.store.row(int(rows.rows[index]))["supervised"]
        if len(supervised) and found < _SCORED:
            found += 1
            start = int(supervised[0][0])
            first = max(0, start - _BEFORE)
            yield ScoringRow(
                rows.ids(int(index))[first : start + _AFTER], start - first, keys[index].tobytes()
            )


def _wrong(scores: Scores) -> int:
    """How many tokens have no distribution; unused entries are -inf."""
    mass = np.exp(scores.topk_logp.astype(np.float64)).sum(1)  # [n]
    tail = np.exp(scores.tail_logp.astype(np.float64))
    good = np.isfinite(mass) & np.isfinite(tail) & (mass <= 1 + _SLACK) & (mass + tail <= 1 + _SLACK)
    return int((~good).sum())


def _few(layers: Sequence[int]) -> str:
    return f"{len(layers)} ({layers[0]} to {layers[-1]})" if layers else "none of that name"


CHECKS = (
    Check(
        name="teacher.local_model_is_read",
        proves="The local teacher's files are whole, and it reads prompts and records of full length.",
        look=local_model_is_read,
    ),
    Check(
        name="teacher.scores_some_rows",
        proves="The local teacher loads, and gives true distributions over the ids.",
        look=scores_some_rows,
        slow=True,
    ),
    Check(
        name="teacher.store_knows_the_rows",
        proves="The teacher store is whole, of this teacher and these settings, and knows the training rows.",
        look=store_knows_the_rows,
    ),
    Check(
        name="teacher.journal_is_read",
        proves="The journal is one of kdfast's; that of a replay answers the prompts.",
        look=journal_is_read,
    ),
)
