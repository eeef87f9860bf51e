"""The checks of the config itself: each passes on a clean project, and catches its fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from preflight_objects import assert_only_fails, clean, look, write_project
from preflight_rows import changed, with_config

from kdfast.config import Config, config_from_dict
from kdfast.recipes.preflight.checks_config import (
    CHECKS,
    files_are_there,
    loads,
    run_folder_is_free,
    sections_agree,
)
from kdfast.recipes.preflight.made.objects import Objects
from kdfast.runs.claim import Claim
from kdfast.runs.folder import RunFolder


def given(**sections: dict[str, Any]) -> Config:
    """A config of a few keys that are set in Python."""
    values: dict[str, dict[str, Any]] = {
        "arch": {"init": "models/small"},
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "tokenizer": "models/small"},
        "io": {"run_dir": "runs/first"},
    }
    for name, keys in sections.items():
        values[name] = values.get(name, {}) | keys
    return config_from_dict(values)


LOCAL = {"model": "teacher", "store": "store"}


@pytest.mark.parametrize(
    ("config", "status", "words"),
    [
        (given(teacher=LOCAL, kd={"temperature": 2.0}), "fail", "training would refuse its store"),
        (given(teacher=LOCAL, kd={"sampled_kl_weight": 0.5}), "fail", "teacher.samples is 0"),
        (
            given(kd={"ce_teacher_weight": 0, "ce_truth_weight": 0, "kl_final_weight": 0}),
            "warn",
            "end at 0",
        ),
        (
            given(optimizer={"schedule_steps": 500, "min_lr_fraction": 0}),
            "fail",
            "the schedule ends at step 500 of 1000, and the rate stays at 0",
        ),
        (given(optimizer={"schedule_steps": 500}), "warn", "the rate stays at 0.1 of its peak"),
        (given(train={"num_steps": 30}), "warn", "more than half of the 30 steps"),
        (
            given(train={"num_steps": 100}, quant={"enabled": True, "start_fraction": 0.3}),
            "warn",
            "more than half of the 30 float steps before quantisation",
        ),
        (
            given(quant={"enabled": True, "warmup_steps": 200}),
            "fail",
            "quantisation has 200 steps",
        ),
        (
            given(io={"final": "best"}, train={"validate_every_steps": 0}),
            "warn",
            "train.validate_every_steps name no step before the last",
        ),
        (
            given(teacher={"prompts": "prompts.jsonl", "out": "answers.jsonl"}),
            "warn",
            "answers.jsonl, which is not among data.train",
        ),
        (given(train={"stop_after_validations": 20}), "warn", "it never stops early"),
        (
            given(kd={"early_tool_ce_weight": 0.1, "early_tool_warmup_steps": 5000}),
            "warn",
            "the early-tool weights grow over 5000 steps",
        ),
        (given(train={"fail_on_gate": True}, gates={"enabled": []}), "fail", "no gate is judged"),
        (
            given(export={"targets": ["gguf"], "gguf_type": "q4_0"}),
            "warn",
            "rounded to 4 bits without training",
        ),
    ],
)
def test_contradictions(config: Config, status: str, words: str) -> None:
    found = sections_agree(config)
    assert [one.status for one in found] == [status], found
    assert words in found[0].text
    assert found[0].remedy


@pytest.mark.parametrize(
    ("sections", "keys"),
    [
        ({"kd": {"jsd_beta": 0.3}}, ["kd.jsd_beta"]),
        (
            {"kd": {"length_hinge": 0.3, "max_preamble_tokens": 3}},
            ["kd.length_hinge", "kd.max_preamble_tokens"],
        ),
        ({"quant": {"format": "q4_0"}}, ["quant.format"]),
        ({"api": {"model": "m"}, "price": {}}, ["api.model"]),
        ({"teacher": {"budget": 10.0}}, ["teacher.budget"]),
        ({"data": {"validation": None}, "speed": {"prompts": 8}}, ["speed.prompts"]),
        ({"speed": {"every_validations": 0, "prompts": 8}}, ["speed.prompts"]),
        ({"data": {"max_rejected_fraction": 0.5}}, ["data.max_rejected_fraction"]),
        ({"kd": {"jsd_beta": 0.5}}, []),
        ({"kd": {"jsd_beta": 0.3, "divergence": "generalized_jsd"}}, []),
        ({"teacher": {"kind": "api"}, "api": {"model": "m"}}, []),
    ],
)
def test_keys_without_effect(sections: dict[str, dict[str, Any]], keys: list[str]) -> None:
    check = next(one for one in CHECKS if one.name == "config.keys_have_effect")
    finding = check.look(given(**sections))
    assert finding.status == ("warn" if keys else "pass"), finding
    assert [line.partition(":")[0] for line in finding.shown] == keys


def test_the_place_of_an_idle_key_is_shown(tmp_path: Path) -> None:
    config = write_project(tmp_path / "project", kd__jsd_beta=0.3)
    finding = next(one for one in CHECKS if one.name == "config.keys_have_effect").look(config)
    assert "config.yaml:" in finding.shown[0]


def test_a_value_out_of_range_is_caught() -> None:
    config = config_from_dict(clean().get("config").to_dict())
    object.__setattr__(config.train, "num_steps", 0)
    assert look("config.loads", clean().replaced(config=config)).status == "fail"
    assert loads(given()).text.startswith("5 of ")


def missing_validation(folder: Path) -> Objects:
    return with_config(changed("data", validation=folder / "nowhere.jsonl"))


def truncated_file(folder: Path) -> Objects:
    file = folder / "validation.jsonl"
    file.write_text('{"prompt": "a", "truth_te', encoding="utf-8")
    return with_config(changed("data", validation=file))


def missing_teacher(folder: Path) -> Objects:
    config = changed("teacher", model=folder / "nowhere")
    return with_config(config)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (missing_validation, "data.validation: no such file"),
        (truncated_file, "validation.jsonl:1"),
        (missing_teacher, "teacher.model"),
    ],
)
def test_a_file_that_is_not_there_is_caught(
    fault: Callable[[Path], Objects], words: str, tmp_path: Path
) -> None:
    finding = look("config.files_are_there", fault(tmp_path))
    assert (finding.status, words in finding.text) == ("fail", True), finding


def test_a_missing_file_fails_no_other_check_of_the_config(tmp_path: Path) -> None:
    assert_only_fails("config.files_are_there", missing_validation(tmp_path))


def test_what_teaching_will_write_may_be_missing(tmp_path: Path) -> None:
    config = clean().get("config")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Is it raining?"}\n', encoding="utf-8")
    out = tmp_path / "answers.jsonl"
    data = replace(config.data, train=(*config.data.train_files, out))
    teacher = replace(config.teacher, prompts=prompts, out=out)
    finding = files_are_there(replace(config, data=data, teacher=teacher), tmp_path)
    assert finding.status == "warn"
    assert "data.train" in finding.text
    assert "teacher.store" in finding.text


def test_all_files_are_there(tmp_path: Path) -> None:
    config = clean().get("config")
    store = tmp_path / "store"
    store.mkdir()
    (store / "a.teacher.arrow").touch()
    found = files_are_there(replace(config, teacher=replace(config.teacher, store=store)), tmp_path)
    assert found.status == "pass", found


def in_folder(path: Path) -> Config:
    return changed("io", run_dir=path)


def unwritable(folder: Path) -> Config:
    return in_folder(Path("/proc/kdfast/run"))


def a_file(folder: Path) -> Config:
    (folder / "run").touch()
    return in_folder(folder / "run")


@pytest.mark.parametrize(
    ("fault", "words"), [(unwritable, "nothing can be written there"), (a_file, "this is a file")]
)
def test_a_folder_that_cannot_be_written_is_caught(
    fault: Callable[[Path], Config], words: str, tmp_path: Path
) -> None:
    finding = run_folder_is_free(fault(tmp_path))
    assert (finding.status, words in finding.text) == ("fail", True), finding
    assert "io.run_dir" in finding.remedy


def test_a_locked_folder_is_caught(tmp_path: Path) -> None:
    import subprocess
    import sys

    program = (
        "import sys; from pathlib import Path; from kdfast.runs.claim import Claim\n"
        "from kdfast.runs.folder import RunFolder\n"
        "with Claim(RunFolder(Path(sys.argv[1]))):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        finding = assert_only_fails("config.run_folder_is_free", with_config(in_folder(tmp_path / "run")))
        holder.communicate("")
    assert "a run is going on there" in finding.text


def test_a_run_that_is_there_is_a_warning(tmp_path: Path) -> None:
    config = in_folder(tmp_path / "run")
    config.save(RunFolder(config.io.run_dir).config)
    finding = run_folder_is_free(config)
    assert (finding.status, "--resume" in finding.remedy) == ("warn", True), finding
    other = replace(config, train=replace(config.train, seed=5))
    finding = run_folder_is_free(other)
    assert (finding.status, "train.seed: 5, the run has 0" in finding.text) == ("warn", True), finding


def test_looking_leaves_nothing_behind(tmp_path: Path) -> None:
    assert run_folder_is_free(in_folder(tmp_path / "runs" / "first")).status == "pass"
    assert list(tmp_path.iterdir()) == []
    with Claim(RunFolder(tmp_path / "runs")):
        pass


@pytest.mark.parametrize("name", [check.name for check in CHECKS])
def test_a_clean_project_passes(name: str) -> None:
    finding = look(name, clean())
    allowed = (
        ["pass", "warn"] if name == "config.files_are_there" else ["pass"]
    )  # its teacher has not scored yet
    assert finding.status in allowed, finding
