"""`kdfast preflight` as a user runs it: a clean project, five that are broken, and the commands that run it first."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_run
from commands import Finished, run_command
from safetensors.torch import load_file, save_file
from tiny import CHATML, write_tokenizer

from kdfast.config import load_config
from kdfast.data import KDDataset
from kdfast.recipes.preflight.made.fake_store import write_fake_store
from kdfast.teacher.api.fake_server import FakeServer

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


class Project:
    """A config whose prompts are not answered yet, and a server that would answer them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out, self.run = folder, folder / "answers.jsonl", folder / "run"
        self.prompts = folder / "prompts.jsonl"
        self.config = tiny_run.write_config(folder, arch__init=str(folder / "teacher"))
        records = [tiny_run.record(number) for number in range(100, 130)]
        for record in records:
            record.pop("teacher_text", None)
        self.write_prompts(records)

    def write_prompts(self, records: list[dict[str, Any]]) -> None:
        self.prompts.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")

    def keys(self, server: FakeServer, *more: str) -> list[str]:
        """The overrides: a server answers, and its answers are what is trained on."""
        values = {
            "teacher.kind": "api",
            "teacher.model": "null",
            "teacher.store": "null",
            "teacher.prompts": self.prompts,
            "teacher.out": self.out,
            "teacher.max_new_tokens": 64,
            "data.train": self.out,
            "api.base_url": server.url,
            "api.model": "fake",
            "api.key_from_env": "null",
            "price.input": 1,
            "price.output": 4,
            "teacher.budget": 5,
            "kd.kl_weight": 0,
            "kd.early_tool_prior_weight": 0,  # of due calls that the teacher did not make: there are none
            "speed.every_validations": 0,
            "gates.enabled": "[]",
        }
        return [f"{key}={value}" for key, value in values.items()] + list(more)

    def preflight(self, server: FakeServer, *more: str) -> Finished:
        return run_command("preflight", self.config, *self.keys(server, *more))

    def teach(self, server: FakeServer, *more: str) -> Finished:
        return run_command("teach", self.config, *self.keys(server, *more))

    @property
    def kept(self) -> dict[str, Any]:
        """What the run folder keeps."""
        return dict(json.loads((self.run / "preflight.json").read_text(encoding="utf-8")))

    def failed(self) -> list[str]:
        return [row["name"] for row in self.kept["rows"] if row["status"] == "fail"]


def questions(server: FakeServer) -> int:
    """How many prompts it was asked; the list of its models is none."""
    return sum(count for text, count in server.texts.items() if "weather" in text)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, FakeServer]]:
    with FakeServer() as server:
        yield Project(tmp_path_factory.mktemp("clean")), server


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_clean_project_passes_and_then_the_server_is_asked(clean: tuple[Project, FakeServer]) -> None:
    project, server = clean
    dry = project.teach(server, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert not (project.run / "preflight.json").exists()  # nothing is paid in a dry run

    first = project.teach(server, "--limit", "3")
    assert first.returncode == 0, first.stdout[-4000:] + first.stderr
    assert "preflight first, nothing is paid yet" in first.stdout
    assert project.failed() == []
    assert questions(server) == 3  # the fake teacher of the preflight has an address of its own

    again = project.teach(server)
    assert again.returncode == 0, again.stderr
    assert "preflight: passed on" in again.stdout
    assert "labels_are_next_tokens" not in again.stdout
    assert questions(server) == 30
    rows = project.kept["rows"]
    passed = {row["name"] for row in rows if row["status"] == "pass"}
    assert {
        "batch.labels_are_next_tokens",
        "checkpoint.resume_gives_the_same_student",
        "losses.gradient_is_where_it_acts",
        "learning.one_batch_overfits",
        "model.is_causal",
        "run.ends_well",
        "teacher.budget_covers_the_job",
        "teacher.every_fault_is_survived",
        "teacher.fake_answers_become_records",
        "teacher.is_reachable",
    } <= passed, [row for row in rows if row["status"] != "pass"]


def test_junit_json_and_strict(clean: tuple[Project, FakeServer], tmp_path: Path) -> None:
    """With `--strict` the warnings of the clean project fail; both files say so, and nothing is asked."""
    project, server = clean
    before = questions(server)
    junit, document = tmp_path / "out.xml", tmp_path / "out.json"
    run_dir = f"io.run_dir={tmp_path / 'strict'}"
    done = project.preflight(server, run_dir, "--strict", "--junit", str(junit), "--json", str(document))
    kept = json.loads(document.read_text(encoding="utf-8"))
    cases = [case for suite in ET.parse(junit).getroot() for case in suite]  # noqa: S314 - our own
    failures = [case for case in cases if case.find("failure") is not None]
    assert len(failures) == kept["counts"]["fail"]
    assert kept["counts"]["warn"] == 0
    assert done.returncode == (4 if failures else 0)
    assert len(cases) == len(kept["rows"])
    assert questions(server) == before


def truncated_prompt(project: Project) -> None:
    with project.prompts.open("a", encoding="utf-8") as file:
        file.write('{"messages": [{"role": "user", "content": "Wea\n')


def template_without_tools(project: Project) -> None:
    (project.folder / "ignores.jinja").write_text(CHATML, encoding="utf-8")


def nan_weight(project: Project) -> None:
    file = project.folder / "teacher" / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "down_proj" in name)
    tensors[name][0, 0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})


def nothing(_: Project) -> None:
    pass


@pytest.mark.parametrize(
    ("fault", "key", "check", "words"),
    [
        (
            template_without_tools,
            "data.template={folder}/ignores.jinja",
            "teacher.prompts_are_asked",
            "chat template",
        ),
        (nan_weight, "train.seed=3", "model.weights_are_finite", "down_proj"),
        (nothing, "teacher.budget=0.00001", "teacher.budget_covers_the_job", "0.00"),
        (nothing, "api.base_url=http://127.0.0.1:9/v1", "teacher.is_reachable", "127.0.0.1:9"),
    ],
)
def test_a_broken_project_is_refused_before_anything_is_paid(
    project: Project, fault: Any, key: str, check: str, words: str
) -> None:
    fault(project)
    with FakeServer() as server:
        done = project.teach(server, key.format(folder=project.folder))
    assert done.returncode == 4, done.stdout[-3000:] + done.stderr
    assert check in project.failed()
    row = next(row for row in project.kept["rows"] if row["name"] == check and row["status"] == "fail")
    assert words in row["text"] + row["remedy"]
    assert row["remedy"]
    assert questions(server) == 0
    assert not project.out.exists()
    assert "--no-preflight" in done.stderr


def test_a_broken_prompt_is_told_with_its_line(project: Project) -> None:
    """The preflight says it among all else; `kdfast teach` refuses it at its first look, before the preflight."""
    truncated_prompt(project)
    with FakeServer() as server:
        done = project.preflight(server)
        refused = project.teach(server)
    assert (done.returncode, refused.returncode, questions(server)) == (4, 2, 0)
    row = next(row for row in project.kept["rows"] if row["name"] == "teacher.prompts_are_asked")
    assert row["status"] == "fail"
    assert "prompts.jsonl:31" in row["text"] + row["remedy"]
    assert "prompts.jsonl:31" in refused.stderr


def test_leaving_it_out_is_written_down(project: Project) -> None:
    with FakeServer() as server:
        done = project.teach(server, "--no-preflight", "--limit", "2")
    assert done.returncode == 0, done.stderr
    assert project.kept["skipped"] == "kdfast teach --no-preflight"
    assert questions(server) == 2


def train_after_preflight(project: Project, *more: str) -> Finished:
    """`kdfast train --preflight` on records that have their answers: no teacher, few steps."""
    values = {
        "teacher.model": "null",
        "teacher.store": "null",
        "kd.kl_weight": 0,
        "kd.early_tool_prior_weight": 0,
        "speed.every_validations": 0,
        "gates.enabled": "[]",
        "train.num_steps": 2,
        "train.eval_prompts": 0,
        "train.eval_irrelevance_prompts": 0,
    }
    keys = [f"{key}={value}" for key, value in values.items()]
    return run_command("train", "--preflight", project.config, *keys, *more)


def test_a_student_that_fails_is_not_trained(project: Project) -> None:
    nan_weight(project)
    done = train_after_preflight(project)
    assert done.returncode == 4, done.stdout[-3000:] + done.stderr
    assert "model.weights_are_finite" in project.failed()
    assert sorted(path.name for path in project.run.iterdir()) == ["preflight.json"]


def test_a_student_that_passes_is_trained(project: Project) -> None:
    done = train_after_preflight(project)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "kdfast train: preflight first" in done.stdout
    assert project.failed() == []
    assert (project.run / "config.yaml").is_file()
    assert (project.run / "student" / "model.safetensors").is_file()


def test_a_student_of_9b_parameters_is_stood_in_for(tmp_path: Path) -> None:
    """The full-size recipe with the user's own paths: its form, losses and quantisation on a small stand-in."""
    config = ROOT / "configs/student_9b_gqa.yaml"
    train = tiny_run.write_records(tmp_path / "train.jsonl", range(48))
    held_out = tiny_run.write_records(tmp_path / "validation.jsonl", range(2000, 2008))
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    keys = [
        f"data.train={train}",
        f"data.validation={held_out}",
        f"data.tokenizer={tokenizer}",
        f"teacher.store={tmp_path / 'store'}",
        f"io.run_dir={tmp_path / 'run'}",
        "train.eval_prompts=2",
        "train.eval_irrelevance_prompts=1",
    ]
    data = load_config(config, keys).data
    rows = [KDDataset.from_config(data, data.train_files), KDDataset.from_config(data, held_out)]
    write_fake_store(tmp_path / "store", rows, k=32, samples=0, temperature=1.0)
    done = run_command("preflight", config, *keys)
    kept = json.loads((tmp_path / "run" / "preflight.json").read_text(encoding="utf-8"))
    failed = [row for row in kept["rows"] if row["status"] == "fail"]
    assert (done.returncode, failed) == (0, []), failed
    assert "for 36 layers, 9," in kept["stand_in"]
    assert kept["stand_in"] in done.stdout
    rows_by_name = {row["name"]: row for row in kept["rows"]}
    assert rows_by_name["qat.begins_at_its_step"]["status"] == "pass"
    assert rows_by_name["qat.recovers_from_a_broken_weight"]["status"] == "pass"
    assert rows_by_name["model.memory_suffices"]["status"] == "warn"
    assert "another machine" in rows_by_name["model.memory_suffices"]["remedy"]
