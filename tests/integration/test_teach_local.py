"""A local teacher's job as a whole: batches make no difference, and a kill loses nothing that had ended."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import local_worker
import pytest
from forking import Starter
from journals import quick_folder
from local_jobs import END_IDS, attempts, exported, quiet, read, requests_of, run_job, write_job
from tiny_run import TOOL

from kdfast.config import Config
from kdfast.recipes.teach.dataset import write_dataset
from kdfast.recipes.teach.plan import plan
from kdfast.teacher.api.journal import Journal, verify

PROMPTS = 32


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return write_job(tmp_path_factory.mktemp("job"), temperature=1.5, batch_size=4)


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as made:
        yield made


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_32_prompts_have_the_same_answers_in_batches_of_1_and_of_8(
    config: Config, folder: Path, temperature: float
) -> None:
    held = {}
    for batch_size in (1, 8):
        teacher = replace(config.teacher, batch_size=batch_size, temperature=temperature)
        changed = replace(config, teacher=teacher)
        path = folder / f"{batch_size}.db"
        asked = requests_of(changed, range(PROMPTS))
        assert run_job(asked, changed, path).answered == PROMPTS
        held[batch_size] = exported(path)
    assert held[1] == held[8]
    assert [line["order"] for line in held[1]] == list(range(PROMPTS))
    if temperature:
        lengths = {len(line["response"]["choices"][0]["token_ids"]) for line in held[1]}
        assert len(lengths) > 5, "answers must end at different times for this test to mean anything"


@pytest.mark.slow
def test_a_kill_loses_no_answer_that_had_ended(config: Config, folder: Path) -> None:
    """Killed twice, once at the first answer and once in the middle of a batch, then left alone."""
    prompts = 12
    asked = requests_of(config, range(prompts))
    whole, path = folder / "whole.db", folder / "answers.db"
    run_job(asked, config, whole)
    config_file = Path(config.data.train_files[0]).with_name("config.yaml")
    starter, ends = Starter(local_worker.__file__), []
    before: list[list[str]] = [[]] * prompts
    kept = 0
    try:
        for kill_at in (1, 3, 0):
            ends.append(starter.run(config_file, path, prompts, kill_at))
            with Journal(path) as journal:  # its process is gone: what was in flight is known to be lost
                assert verify(journal).ok
                assert journal.stats().in_flight == 0
            after = attempts(path, asked)
            for one, tries, now in zip(asked, before, after, strict=True):
                # answered before: not asked again
                assert now[: len(tries)] == tries, one.prompt.line
                assert now == tries or "answered" not in tries, one.prompt.line
                assert now.count("answered") <= 1
            # at most a batch was in work
            new = [now[len(tries) :] for tries, now in zip(before, after, strict=True)]
            assert sum(states.count("unknown") for states in new) <= config.teacher.batch_size
            before, kept = after, sum("answered" in tries for tries in before)
    finally:
        starter.close()
    assert ends == [-signal.SIGKILL] * 2 + [0]
    # Each kill comes in the first batch, so that some have an answer and others have none.
    assert 1 + 3 <= kept <= 2 * config.teacher.batch_size < prompts
    assert all(tries[-1] == "answered" for tries in before)
    assert exported(path) == exported(whole)
    assert run_job(asked, config, path, read=read).sent == 0


def test_prompts_become_a_dataset_whose_bytes_do_not_depend_on_the_batches(
    tmp_path: Path, folder: Path
) -> None:
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    asked = [
        {
            "messages": [
                {"role": "user", "content": f"How is the weather {'today ' * (number % 4)}in city {number}?"}
            ]
        }
        | ({"tools": [TOOL]} if number % 3 == 0 else {})
        for number in range(16)
    ]
    prompts.write_text("".join(json.dumps(one) + "\n" for one in asked), encoding="utf-8")
    config = write_job(tmp_path, temperature=1.0, prompts=str(prompts), out=str(out))
    assert config.teacher.model is not None
    ends = config.teacher.model / "generation_config.json"
    ends.write_text(json.dumps({"eos_token_id": list(END_IDS)}), encoding="utf-8")
    assert config.teacher.files is not None
    made, written = plan(config, config.teacher.files), {}
    assert sorted(one.request.order for one in made.asked) == list(range(16))
    assert {tuple(one.request.body["stop"]) for one in made.asked} == {tuple(sorted({*END_IDS, 2}))}
    for batch_size in (1, 8):
        changed = replace(config, teacher=replace(config.teacher, batch_size=batch_size))
        path, reader = folder / f"{batch_size}.db", made.answer_reader(logprobs=True)
        result = run_job(made.asked, changed, path, quiet(), read=reader.read)
        assert (result.ended, result.answered, result.sent) == ("done", 16, 16)
        assert {verdict.kind for verdict in result.verdicts} == {"accepted", "filtered"}
        with Journal(path) as journal:
            told = write_dataset(made.asked, journal, reader.read, made.reader, out)
        assert told.unanswered == 0
        assert 0 < told.records < 16
        written[batch_size] = out.read_bytes()
    assert written[1] == written[8]
    assert exported(folder / "1.db") == exported(folder / "8.db")
    for line in written[8].splitlines():
        message = json.loads(line)["teacher_message"]
        assert message["content"].strip() or message["tool_calls"]
