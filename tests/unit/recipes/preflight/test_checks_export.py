"""Exports: what keeps the finished student from leaving is said before training."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
from preflight_objects import assert_only_fails, clean, find, look
from preflight_slow import slow_failures

from kdfast.llama_cpp.library import load_library
from kdfast.recipes.preflight.checks_export import CHECKS
from kdfast.recipes.preflight.look import look_once
from kdfast.recipes.preflight.made.small_run import Exported

NAMES = [check.name for check in CHECKS]
EXTRA, FAMILY, DRY, PROMPTS = NAMES
KEPT = (
    "small",
    "run",
    "machine",
    "figures",
    "sample",
    "sample_rows",
    "learner",
    "student",
    "batches",
    "objective",
)


def exporting(*targets, **values):
    """The clean objects with exports asked for."""
    config = clean().get("config")
    export = replace(config.export, targets=targets, **values)
    kept = {name: clean().get(name) for name in KEPT}
    run = clean().get("run")
    ended = replace(run.project.config, export=export)
    run = replace(run, project=replace(run.project, config=ended))
    return clean().replaced(**kept | {"run": run, "config": replace(config, export=export)})


@pytest.mark.parametrize("name", NAMES)
def test_without_targets_there_is_nothing_to_look_at(name):
    assert look(name, clean().replaced(exports=Exported({}))).text == "export.targets is []"


def test_a_dry_run_for_hugging_face_passes():
    objects = exporting("hf")
    assert look(DRY, objects).text == "hf: weights are those of the small student"
    assert [look(name, objects).status for name in (FAMILY, DRY, PROMPTS)] == ["pass"] * 3
    assert look(EXTRA, objects).status == "skip"


def test_a_dry_run_for_llama_cpp_is_run_and_compared():
    pytest.importorskip("xllamacpp")
    objects = exporting("gguf")
    found = [look(name, objects) for name in NAMES]
    assert [one.status for one in found if one.status == "fail"] == []
    assert [one.status for one in found][:2] == ["pass", "pass"]
    assert found[3].status == "pass"


@pytest.fixture
def without_llama_cpp(monkeypatch):
    load_library.cache_clear()
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    yield
    load_library.cache_clear()


@pytest.mark.usefixtures("without_llama_cpp")
def test_a_missing_extra_is_seen():
    found = assert_only_fails(EXTRA, exporting("gguf"))
    assert "llama.cpp is not installed" in found.text
    assert "pip install 'kdfast[export]'" in found.remedy


@pytest.mark.usefixtures("without_llama_cpp")
def test_without_verification_the_extra_is_not_needed():
    assert look(EXTRA, exporting("gguf", verify=False)).status == "skip"


def test_a_family_that_cannot_leave_is_seen(tmp_path):
    pytest.importorskip("xllamacpp")
    objects = exporting("gguf")
    model = tmp_path / "model"
    model.mkdir()
    tokenizer = objects.get("config").data.tokenizer
    for file in tokenizer.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}), encoding="utf-8")
    user = objects.get("config")
    kept = {name: objects.get(name) for name in KEPT}
    broken = replace(user, arch=replace(user.arch, init=str(model)))
    found = look(FAMILY, objects.replaced(**kept | {"config": broken}))
    assert found.status == "fail"
    assert "mamba" in found.text


def test_an_export_without_records_to_compare_on_is_seen():
    objects = exporting("hf")
    config = objects.get("config")
    kept = {name: objects.get(name) for name in KEPT}
    without = replace(
        config,
        data=replace(config.data, validation=None),
        train=replace(config.train, eval_prompts=0, eval_irrelevance_prompts=0),
    )
    found = look(FAMILY, objects.replaced(**kept | {"config": without}))
    assert found.status == "fail"
    assert "needs data.validation" in found.text


def written(directory, **statuses):
    """The folder of an export whose manifest has checks that ended so."""
    directory.mkdir()
    checks = {"weights": "passed", "logits": "passed", "prompt": "passed", "calls": "passed"} | statuses
    parity = {
        name: {"status": status, "figures": {}, "problems": ["row 3 differs"]}
        for name, status in checks.items()
    }
    document = {
        "kind": "kdfast.export",
        "schema_version": "1.0",
        "target": "gguf",
        "parity": parity,
        "files": [],
    }
    (directory / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    return directory


@pytest.mark.parametrize(
    ("name", "statuses", "text"),
    [
        (
            DRY,
            {"logits": "failed", "calls": "failed"},
            "gguf: the export differs from what was trained in logits and",
        ),
        (PROMPTS, {"prompt": "failed"}, "gguf: the runtime makes other prompts"),
    ],
)
def test_an_export_that_differs_is_seen_by_its_check_alone(tmp_path, name, statuses, text):
    folder = written(tmp_path / "gguf.failed", **statuses)
    objects = exporting("gguf").replaced(exports=Exported({"gguf": folder}))
    found = look(name, objects)
    assert found.status == "fail"
    assert text in found.text
    assert found.shown[0].endswith("row 3 differs")
    assert slow_failures(objects, "export") == [name]


def test_an_export_that_was_not_made_is_seen():
    assert look(DRY, exporting("gguf").replaced(exports=Exported({}))).text == "gguf: no export was made"


def test_what_was_not_compared_does_not_pass(tmp_path):
    folder = written(tmp_path / "gguf", calls="not_measured", prompt="not_measured")
    objects = exporting("gguf").replaced(exports=Exported({"gguf": folder}))
    found = look(DRY, objects)
    assert (found.status, found.text) == ("skip", "gguf: calls not compared: nothing says why")
    assert [one.status for one in look_once(find(DRY), objects)] == ["pass", "skip"]
    assert look(PROMPTS, objects).status == "skip"


def test_exports_that_nobody_verifies_do_not_pass(tmp_path):
    folder = written(
        tmp_path / "gguf", **dict.fromkeys(("weights", "logits", "prompt", "calls"), "not_measured")
    )
    objects = exporting("gguf", verify=False).replaced(exports=Exported({"gguf": folder}))
    assert [look(name, objects).status for name in (DRY, PROMPTS)] == ["skip", "skip"]


def test_a_damaged_manifest_fails(tmp_path):
    folder = written(tmp_path / "gguf")
    (folder / "manifest.json").write_text("{", encoding="utf-8")
    found = look(DRY, exporting("gguf").replaced(exports=Exported({"gguf": folder})))
    assert found.status == "fail"
    assert "manifest.json" in found.text
