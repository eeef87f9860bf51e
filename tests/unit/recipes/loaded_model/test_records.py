"""The records of a run are read as training read them."""

import json
import shutil

import pytest
from tiny_run import record, write_config

from kdfast.config import load_config
from kdfast.errors import DataError
from kdfast.recipes.loaded_model import read_records
from kdfast.recipes.requests import Settings
from kdfast.runs.folder import RunFolder


def made_run(folder, **changes):
    """A run folder whose student is the teacher."""
    config = load_config(write_config(folder, **changes))
    run = RunFolder(config.io.run_dir)
    config.save(run.config)
    shutil.copytree(config.teacher.model, run.student)
    return run


def write(path, *records):
    path.write_text("".join(json.dumps(one) + "\n" if isinstance(one, dict) else one for one in records))
    return path


def test_reasoning_that_training_accepted_is_accepted(tmp_path):
    thought = record(48) | {"teacher_reasoning_content": "Let me think."}
    thought.pop("truth_message")
    thought |= {"teacher_text": "Rome."}
    prompts = write(tmp_path / "held_out.jsonl", thought, record(49))
    run = made_run(tmp_path, data__allow_reasoning=True)
    settings = Settings(prompts=prompts, template="hermes")
    dataset, left_out = read_records(run.path, run.student, settings, leave_out_bad_tools=False)
    assert (len(dataset.one_row_a_record()), left_out) == (2, [])
    with pytest.raises(DataError, match="allow_reasoning"):
        read_records(run.student, run.student, settings, leave_out_bad_tools=False)


def test_lines_that_training_set_aside_are_set_aside(tmp_path):
    prompts = write(tmp_path / "held_out.jsonl", record(48), "{torn\n", record(49))
    run = made_run(tmp_path, data__on_error="quarantine", data__max_rejected_fraction=0.5)
    settings = Settings(prompts=prompts, template="hermes")
    dataset, _ = read_records(run.path, run.student, settings, leave_out_bad_tools=False)
    assert (len(dataset.one_row_a_record()), dataset.rejected) == (2, 1)
    with pytest.raises(DataError, match=r"held_out.jsonl:2"):
        read_records(run.student, run.student, settings, leave_out_bad_tools=False)
