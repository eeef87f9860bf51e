"""Checks of the config itself: its keys, its files, its run folder. No torch in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kdfast.config import Config, config_from_dict, load_config
from kdfast.errors import ConfigError
from kdfast.recipes.first_look.of_config import look_before_training
from kdfast.recipes.first_look.of_teacher import look_before_teaching
from kdfast.recipes.first_look.stores import holds_stores
from kdfast.recipes.preflight.check import Check, Finding, failed, passed, warned
from kdfast.recipes.preflight.looking.contradictions import RULES
from kdfast.recipes.preflight.looking.idle_keys import idle_keys, keys_set
from kdfast.runs.claim import Claim, check_not_running
from kdfast.runs.folder import RunFolder, check_run_folder

_ANOTHER_FOLDER = "choose another io.run_dir"
_STAND_IN_RECORD = '{"prompt": "a", "truth_text": "a"}\n'


def loads(config: Config) -> Finding:
    """The resolved values load again, to an equal config: every key is known, of its type and in its range."""
    values = config.to_dict()
    if config_from_dict(values) != config:
        return failed("the resolved values load to another config", "load the config by kdfast.load_config")
    total = sum(len(keys) for keys in values.values())
    return passed(f"{len(keys_set(config))} of {total} keys are set, all known, of their types and in range")


def sections_agree(config: Config) -> Sequence[Finding]:
    """One finding for each rule that the config breaks."""
    found = [finding for finding in (rule(config) for rule in RULES) if finding is not None]
    return found or [passed(f"{len(RULES)} rules between sections hold")]


def keys_have_effect(config: Config) -> Finding:
    """No key that the user set is made idle by another."""
    idle = idle_keys(config)
    if not idle:
        return passed(f"{len(keys_set(config))} keys are set, and each does something")
    shown = [f"{key}: {why}{_place(config, key)}" for key, why in idle.items()]
    text = f"{len(idle)} of the {len(keys_set(config))} keys that are set do nothing ({', '.join(idle)})"
    return warned(text, "remove them, or mend what makes them idle", *shown)


def files_are_there(config: Config, work: Path) -> Finding:
    """Every path is there and of its kind; what `kdfast teach` is going to write may be missing."""
    if _teaches(config):
        # whether a paid teacher can be asked (key, price, terms) is looked at elsewhere; here its files are
        local = replace(config.teacher, kind="local") if config.teacher.kind == "api" else config.teacher
        look_before_teaching(replace(config, teacher=local))
    later, as_taught = _as_taught(config, work)
    look_before_training(as_taught)
    if later:
        return warned(
            f"all files are there and of their kinds but those that kdfast teach writes: {', '.join(later)}",
            "run `kdfast teach` with this config before training",
        )
    return passed("all files are there and of their kinds")


def run_folder_is_free(config: Config) -> Finding:
    """A run may start in its folder: nobody trains there, nothing is there yet, and files can be written."""
    folder = RunFolder(config.io.run_dir)
    try:
        check_run_folder(config, resume=True)
    except ConfigError as error:
        if folder.path.is_dir():
            return warned(str(error), _ANOTHER_FOLDER)
        return failed(str(error), _ANOTHER_FOLDER)
    try:
        check_not_running(folder)
        with Claim(folder):
            pass
    except OSError as error:
        return failed(
            f"io.run_dir: nothing can be written there ({error.strerror}): {folder.path}", _ANOTHER_FOLDER
        )
    if folder.holds_run:
        step = load_config(folder.config).train.num_steps
        return warned(
            f"{folder.path} holds a run of this config already ({step} steps)",
            f"go on with it by --resume, or {_ANOTHER_FOLDER}",
        )
    return passed(f"nothing is in {folder.path} yet, and a run can be written there")


def _teaches(config: Config) -> bool:
    """Whether `kdfast teach` has anything to do."""
    teacher = config.teacher
    return teacher.files is not None or (
        teacher.kind == "local" and None not in (teacher.model, teacher.store)
    )


def _as_taught(config: Config, work: Path) -> tuple[list[str], Config]:
    """What is missing because nobody has taught yet, and the config with stand-ins for it."""
    later: list[str] = []
    data, teacher = config.data, config.teacher
    if teacher.out in data.train_files and not teacher.out.exists():
        later.append(f"data.train ({teacher.out})")
        answers = work / "answers-to-come.jsonl"
        answers.write_text(_STAND_IN_RECORD, encoding="utf-8")
        files = tuple(answers if file == teacher.out else file for file in data.train_files)
        data = replace(data, train=files)
    reads = config.kd.reads_store(live_teacher=teacher.live)
    if reads and None not in (teacher.model, teacher.store) and not _taught(teacher.store):
        later.append(f"teacher.store ({teacher.store})")
        store = work / "store-to-come"
        store.mkdir(exist_ok=True)
        (store / "to-come.teacher.arrow").touch()
        teacher = replace(teacher, store=store)
    return later, replace(config, data=data, teacher=teacher)


def _taught(store: Path | None) -> bool:
    return store is not None and holds_stores(store)


def _place(config: Config, key: str) -> str:
    origin = config.origins.get(key, "default")
    return "" if origin in ("default", "override", "given") else f" ({origin})"


CHECKS = (
    Check(
        name="config.loads",
        proves="Every key is known, of its type and in its range.",
        look=loads,
    ),
    Check(
        name="config.sections_agree",
        proves="No two keys contradict each other.",
        look=sections_agree,
    ),
    Check(
        name="config.keys_have_effect",
        proves="No key that is set is ignored.",
        look=keys_have_effect,
    ),
    Check(
        name="config.files_are_there",
        proves="Every file that teaching and training read is there and of its kind.",
        look=files_are_there,
    ),
    Check(
        name="config.run_folder_is_free",
        proves="A run can start in its folder and replaces nothing.",
        look=run_folder_is_free,
    ),
)
