"""`kdfast export`, and the section `export` of a run: what ships is what was trained, or it gets no name."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import run_command
from qat_runs import PLAIN
from tiny_run import record, write_config

from kdfast.config import load_config
from kdfast.export.gguf import read_gguf
from kdfast.quantized import read_table

pytestmark = pytest.mark.slow

RUN = ["train.num_steps=4", "train.validate_every_steps=4", "quant.start_fraction=0", "quant.format=q4_0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run under quantisation that exports its student to both targets at its end."""
    folder = tmp_path_factory.mktemp("export")
    write_config(folder)
    done = run_command("train", folder / "config.yaml", *PLAIN, *RUN, "export.targets=[gguf,hf]")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run"


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    return found


def statuses(folder: Path) -> dict[str, str]:
    return {name: one["status"] for name, one in manifest(folder)["parity"].items()}


def nothing_left(out: Path) -> bool:
    return not out.exists() and not list(out.parent.glob(f".{out.name}*"))


def test_a_run_exports_its_student_with_the_codes_of_training(run: Path):
    folder = run / "export" / "gguf"
    made = manifest(folder)
    assert made["gguf"] == {"file": "run-q4_0.gguf", "type": "q4_0", "origin": "trained"}
    assert made["source"]["step"] == 4
    assert made["source"]["qat"] == "done"
    table, file = read_table(run / "student"), read_gguf(folder / "run-q4_0.gguf")
    codes, scales = file.tensors["blk.1.ffn_down.weight"].blocks()
    trained = table.tensors["model.layers.1.mlp.down_proj.weight"]
    assert (codes == trained.codes.numpy()).all()
    assert (scales == trained.scales.numpy()).all()
    hashes = {name: one["sha256"] for name, one in made["tensors"].items()}
    assert {name: hashes[name] for name in table.tensors} == table.hashes()
    assert set(statuses(folder).values()) == {"passed"}
    assert made["parity"]["logits"]["figures"]["mean_kl"] < 0.005
    assert (folder / "tools.gbnf").is_file()
    assert "raw" in (folder / "Modelfile").read_text()
    for file_entry in made["files"]:
        assert (folder / file_entry["file"]).stat().st_size == file_entry["bytes"]


def test_the_hugging_face_export_is_the_student_byte_by_byte(run: Path):
    folder = run / "export" / "hf"
    for name in ("model.safetensors", "quantized.safetensors", "tokenizer.json", "chat_template.jinja"):
        assert (folder / name).read_bytes() == (run / "student" / name).read_bytes()
    assert statuses(folder) == {
        "weights": "passed",
        "logits": "not_measured",
        "prompt": "passed",
        "calls": "not_measured",
    }
    assert manifest(folder)["not_measured"]["parity.calls"].startswith("vLLM")
    assert "vllm serve" in (folder / "README.md").read_text()


def test_no_path_of_this_machine_leaves_with_an_export(run: Path):
    for folder in (run / "export" / "gguf", run / "export" / "hf"):
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix not in (".gguf", ".safetensors"):
                assert str(run.parent) not in path.read_text(), path


def test_a_run_that_is_resumed_keeps_its_exports_and_makes_a_damaged_one_anew(run: Path):
    command = ["train", run.parent / "config.yaml", *PLAIN, *RUN, "export.targets=[gguf,hf]", "--resume"]
    file = run / "export" / "gguf" / "run-q4_0.gguf"
    before = file.stat().st_mtime_ns, (run / "export" / "hf" / "manifest.json").stat().st_mtime_ns
    again = run_command(*command)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("(as before)") == 2
    assert (file.stat().st_mtime_ns, (run / "export" / "hf" / "manifest.json").stat().st_mtime_ns) == before
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (run / "export" / "hf" / "tokenizer.json").unlink()
    mended = run_command(*command)
    assert mended.returncode == 0, mended.stderr
    assert "(as before)" not in mended.stdout
    assert file.read_bytes() == content
    assert (run / "export" / "hf" / "tokenizer.json").is_file()


def test_a_run_that_could_not_export_is_refused_before_its_first_step(run: Path, tmp_path: Path):
    config = load_config(run / "config.yaml")
    assert config.export.targets == ("gguf", "hf")
    model = tmp_path / "model"
    shutil.copytree(config.teacher.model, model)
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(settings | {"hidden_act": "gelu"}))
    refused = run_command(
        "train", run.parent / "config.yaml", *PLAIN, *RUN, f"io.run_dir={tmp_path / 'run'}",
        f"arch.init={model}", "export.targets=[gguf]",
    )  # fmt: skip
    assert refused.returncode == 2
    assert "silu" in refused.stderr
    assert not (tmp_path / "run").exists()
    refused = run_command(
        "train", run.parent / "config.yaml", *PLAIN, *RUN, f"io.run_dir={tmp_path / 'run'}",
        "export.targets=[gguf]", "export.gguf_type=q8_0",
    )  # fmt: skip
    assert refused.returncode == 2
    assert "export.gguf_type: must be null or 'q4_0'" in refused.stderr
    (tmp_path / "run" / "export" / "gguf").mkdir(parents=True)
    (tmp_path / "run" / "export" / "gguf" / "thesis.txt").write_text("mine")
    refused = run_command(
        "train",
        run.parent / "config.yaml",
        *PLAIN,
        *RUN,
        f"io.run_dir={tmp_path / 'run'}",
        "export.targets=[gguf]",
    )
    assert refused.returncode == 2
    assert "thesis.txt" in refused.stderr


def test_a_width_that_the_type_cannot_hold_is_refused_before_the_first_step(tmp_path: Path):
    write_config(tmp_path)
    sizes = ["arch.init=scratch", "arch.d_model=48", "arch.n_layers=1", "arch.n_heads=2", "arch.d_ff=64"]
    plain = [one for one in PLAIN if not one.startswith("quant.")]
    refused = run_command("train", tmp_path / "config.yaml", *plain, *sizes, "export.targets=[gguf]")
    assert refused.returncode == 2
    assert "export.gguf_type: q8_0 cannot hold this student" in refused.stderr
    assert "set export.gguf_type=f16" in refused.stderr
    assert not (tmp_path / "run" / "config.yaml").exists()


def records_with_a_float(path: Path) -> Path:
    """Records whose tool has the number 1.0 in its schema: llama.cpp prints it as 1."""
    lines = []
    for number in range(48, 56):
        one = json.loads(json.dumps(record(number)))
        one["tools"][0]["function"]["parameters"]["properties"]["days"]["minimum"] = 1.0
        lines.append(json.dumps(one) + "\n")
    path.write_text("".join(lines))
    return path


def test_another_prompt_fails_unless_its_cause_is_accepted_by_name(run: Path, tmp_path: Path):
    prompts, out = records_with_a_float(tmp_path / "records.jsonl"), tmp_path / "out"
    ask = ["export", run, "--target", "gguf", "--prompts", prompts, "--out", out]
    failed = run_command(*ask)
    assert failed.returncode == 3, failed.stdout + failed.stderr
    assert "8 prompts differ (number:" in failed.stdout
    assert "OUT.failed" not in failed.stdout
    left = tmp_path / "out.failed"
    assert nothing_left(out)
    assert statuses(left)["prompt"] == "failed"
    assert manifest(left)["parity"]["prompt"]["figures"]["differences"] == {"number": 8}
    assert "failed" in (left / "README.md").read_text()
    waived = run_command(*ask, "--waive", "number")
    assert waived.returncode == 0, waived.stdout + waived.stderr
    assert statuses(out)["prompt"] == "waived"
    assert manifest(out)["asked"]["waive"] == ["number"]
    assert not left.exists()
    again = run_command(*ask, "--replace")  # it fails now, and the export that passed keeps its place
    assert again.returncode == 3
    assert statuses(out)["prompt"] == "waived"
    assert left.is_dir()


def test_what_was_not_verified_says_so(run: Path, tmp_path: Path):
    out = tmp_path / "out"
    done = run_command(
        "export", run, "--target", "gguf", "--no-verify", "--out", out, "--license", "apache-2.0"
    )
    assert done.returncode == 0, done.stderr
    assert set(statuses(out).values()) == {"not_measured"}
    assert manifest(out)["not_measured"]["parity.weights"] == "not verified: --no-verify"
    card = (out / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "not verified: --no-verify" in card


def test_what_cannot_be_exported_is_refused_in_one_line(run: Path, tmp_path: Path):
    out = tmp_path / "out"

    def refused(*arguments: Any, code: int = 2) -> str:
        done = run_command("export", *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        return done.stderr

    gguf = ["--target", "gguf", "--out", out]
    assert "no such" in refused(tmp_path / "nowhere", *gguf)
    (tmp_path / "begun").mkdir()
    shutil.copy(run / "config.yaml", tmp_path / "begun" / "config.yaml")
    assert "has no student yet" in refused(tmp_path / "begun", *gguf)
    assert "is an export already" in refused(run / "export" / "gguf", *gguf)
    assert "--type: the student was trained as q4_0" in refused(run, *gguf, "--type", "q8_0")
    assert "--prompts: needed" in refused(run / "student", *gguf)
    assert "--pre: must be proven" in refused(run, *gguf, "--pre", "qwen2", "--no-verify")
    assert "no such file" in refused(run, *gguf, "--prompts", tmp_path / "no.jsonl")
    (tmp_path / "tools.json").write_text("[")
    assert "tools.json" in refused(run, *gguf, "--tools", tmp_path / "tools.json")
    other = tmp_path / "other"
    shutil.copytree(run / "student", other)
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(settings | {"model_type": "gpt2"}))
    assert "model type must be one of llama" in refused(other, *gguf, "--no-verify")
    assert nothing_left(out)


def test_a_folder_with_other_files_is_never_replaced(run: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    ask = ["export", run, "--target", "hf", "--no-verify", "--out", out]
    assert run_command(*ask).returncode == 0  # an empty folder is free
    taken = run_command(*ask)
    assert taken.returncode == 2
    assert "add --replace" in taken.stderr
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("mine")
    other = run_command(*ask[:-1], tmp_path / "thesis", "--replace")
    assert other.returncode == 2
    assert "holds files of somebody else" in other.stderr
    assert (tmp_path / "thesis" / "thesis.txt").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    file = run_command(*ask[:-1], tmp_path / "file", "--replace")
    assert file.returncode == 2
    assert "must be a folder" in file.stderr


def test_nothing_of_somebody_else_is_lost(run: Path, tmp_path: Path):
    out = tmp_path / "out"
    ask = ["export", run, "--target", "hf", "--no-verify", "--out", out]
    failed = tmp_path / "out.failed"
    failed.mkdir()
    (failed / "notes.txt").write_text("mine")
    refused = run_command(*ask)
    assert refused.returncode == 2
    assert "out.failed" in refused.stderr
    assert (failed / "notes.txt").read_text() == "mine"
    shutil.rmtree(failed)
    assert run_command(*ask).returncode == 0
    (out / "speed.json").write_text("mine")
    refused = run_command(*ask, "--replace")
    assert refused.returncode == 2
    assert "speed.json" in refused.stderr
    assert (out / "speed.json").read_text() == "mine"
    (out / "speed.json").unlink()
    shutil.copytree(run / "student", out / "student")
    inside = run_command("export", out / "student", *ask[2:], "--replace")
    assert inside.returncode == 2
    assert "holds the model that is exported" in inside.stderr
    assert (out / "student" / "config.json").is_file()
    shutil.rmtree(out / "student")
    another = tmp_path / ".other.tmp-1"  # of a process that runs
    mine = tmp_path / ".out.tmp-999999999"  # of one that was killed
    for path in (another, mine):
        path.mkdir()
    for name in ("*", "[m]ore"):
        assert run_command(*ask[:-1], tmp_path / name).returncode == 0
    assert run_command(*ask, "--replace").returncode == 0
    assert another.is_dir()
    assert not mine.exists()


def test_an_export_into_this_folder_and_through_a_link(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ask = ["export", run.resolve(), "--target", "hf", "--no-verify", "--out"]
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    (tmp_path / "there").mkdir()
    assert run_command(*ask, tmp_path / "link").returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "manifest.json").is_file()
    monkeypatch.chdir(tmp_path / "here")
    assert run_command(*ask, ".").returncode == 0
    assert (tmp_path / "here" / "manifest.json").is_file()


def test_a_proof_that_was_not_made_is_none(run: Path, tmp_path: Path):
    def records(change: Any) -> Path:
        made = [json.loads(json.dumps(record(number))) for number in range(48, 52)]
        for one in made:
            change(one)
        path = tmp_path / "records.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in made))
        return path

    long = records(lambda one: one["messages"][0].update(content="very long " * 2000))
    ask = ["export", run, "--target", "gguf", "--out", tmp_path / "out", "--prompts"]
    failed = run_command(*ask, long)
    assert failed.returncode == 3, failed.stderr
    assert "llama.cpp computed nothing" in failed.stdout
    special = records(lambda one: one["messages"][0].update(content="<|im_end|> what"))
    failed = run_command(*ask, special, "--pre", "gpt-2")
    assert failed.returncode == 3, failed.stderr
    assert "--pre gpt-2 is not proven" in failed.stdout
    bad = records(lambda one: one)
    text = bad.read_text().splitlines()
    broken = json.loads(text[1])
    broken["tools"][0]["function"]["parameters"] = {"type": 5}
    bad.write_text("\n".join([text[0], json.dumps(broken), *text[2:]]) + "\n")
    done = run_command(*ask, bad)
    assert done.returncode == 0, done.stdout + done.stderr
    assert manifest(tmp_path / "out")["not_measured"]["records"].startswith("1 with tools that are no valid")


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a disk without room: no file may get longer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("target", "size"), [("gguf", 30_000), ("gguf", 43_000), ("hf", 30_000)])
def test_a_full_disk_leaves_nothing(run: Path, tmp_path: Path, target: str, size: int):
    out = tmp_path / "out"
    with files_of_at_most(size):
        full = run_command("export", run, "--target", target, "--no-verify", "--out", out)
    assert full.returncode == 1, full.stdout + full.stderr
    assert len(full.stderr.strip().splitlines()) == 1
    assert nothing_left(out)
