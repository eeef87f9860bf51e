"""Everything that users get wrong: one line that names what, where and the remedy; the right exit code; no debris."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from pathlib import Path

import pytest
from commands import Finished, run_command, run_process
from tiny_run import write_config


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bad")
    result = run_command("teach", write_config(directory))
    assert result.returncode == 0, result.stderr
    return directory


def fails(code: int, *arguments: str | Path, names: tuple[str, ...]) -> None:
    """Runs kdfast, which must fail with this code and one line that has these words in it."""
    failed(run_command(*arguments), code, names)


def failed(result: Finished, code: int, names: tuple[str, ...]) -> None:
    """The command failed with this code and one line that has these words in it."""
    assert result.returncode == code, result.stderr + result.stdout
    error = result.stderr.strip()
    assert len(error.splitlines()) == 1, error
    for name in names:
        assert name in error, error


def bad_records(directory: Path, content: bytes) -> Path:
    path = directory / "bad.jsonl"
    path.write_bytes(content)
    return path


def test_missing_records(taught: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fails(
        2,
        "train",
        taught / "config.yaml",
        "data.train=nowhere.jsonl",
        f"io.run_dir={run}",
        names=("nowhere.jsonl",),
    )


def test_missing_config(tmp_path: Path) -> None:
    fails(2, "train", tmp_path / "no.yaml", names=("no.yaml",))


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"", ("bad.jsonl", "no records")),
        (b'{"prompt": "a", "teacher_text": "b"}\n{"prompt": "a", "teach', ("bad.jsonl:2:",)),
        (b'{"prompt": "a", "teacher_text": 7}\n', ("bad.jsonl:1:", "teacher_text")),
        (b'{"prompt": "a", "teacher_text": "b"}\n\n{"prompt": NaN}\n', ("bad.jsonl:3:", "NaN")),
        (b'{"prompt": "a", "teacher_text": "\xff"}\n', ("bad.jsonl:1:", "UTF-8")),
        (b'{"prompt": "a"}\n', ("bad.jsonl:1:", "teacher_text")),
    ],
    ids=["empty", "truncated", "wrong type", "NaN", "not UTF-8", "no answer"],
)
def test_bad_lines(taught: Path, tmp_path: Path, content: bytes, names: tuple[str, ...]) -> None:
    path = bad_records(tmp_path, content)
    fails(
        2,
        "train",
        taught / "config.yaml",
        f"data.train={path}",
        f"io.run_dir={tmp_path / 'run'}",
        names=names,
    )
    assert [file.name for file in tmp_path.rglob("*.arrow")] == []


def test_a_directory_as_records(taught: Path, tmp_path: Path) -> None:
    fails(
        2,
        "train",
        taught / "config.yaml",
        f"data.train={tmp_path}",
        f"io.run_dir={tmp_path / 'run'}",
        names=(str(tmp_path),),
    )


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ("{", ("tokenizer.json",)),
        (json.dumps({"model": {"type": "WordPiece", "vocab": {}}}), ("tokenizer.json", "byte-level")),
    ],
    ids=["truncated", "not byte-level"],
)
def test_wrong_tokenizer(taught: Path, tmp_path: Path, document: str, names: tuple[str, ...]) -> None:
    (tmp_path / "tokenizer.json").write_text(document)
    fails(
        2,
        "data",
        "inspect",
        taught / "train.jsonl",
        "--tokenizer",
        tmp_path / "tokenizer.json",
        names=names,
    )
    fails(
        2,
        "data",
        "inspect",
        taught / "train.jsonl",
        "--tokenizer",
        tmp_path / "nothing",
        names=("nothing",),
    )


def test_an_answer_longer_than_the_largest_shape(taught: Path, tmp_path: Path) -> None:
    record = {"prompt": "a", "teacher_text": "long " * 600}
    path = bad_records(tmp_path, (json.dumps(record) + "\n").encode())
    fails(
        2,
        "train",
        taught / "config.yaml",
        f"data.train={path}",
        f"io.run_dir={tmp_path / 'run'}",
        names=("bad.jsonl:1", "512", "larger shape"),
    )


def test_config_typo(taught: Path, tmp_path: Path) -> None:
    fails(
        2,
        "train",
        taught / "config.yaml",
        "train.num_step=3",
        names=("train.num_step", "did you mean 'num_steps'?"),
    )


def test_kl_without_a_teacher(taught: Path, tmp_path: Path) -> None:
    fails(
        2,
        "train",
        taught / "config.yaml",
        f"teacher.store={tmp_path}",
        f"io.run_dir={tmp_path / 'run'}",
        names=("teacher.store", "kdfast teach"),
    )


def test_teacher_that_is_not_there(taught: Path, tmp_path: Path) -> None:
    fails(5, "teach", taught / "config.yaml", f"teacher.model={tmp_path / 'none'}", names=("none",))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    fails(
        5,
        "teach",
        taught / "config.yaml",
        f"teacher.model={tmp_path / 'broken.gguf'}",
        names=("broken.gguf",),
    )


def limit_file_size() -> None:
    """A disk that is full after 64 KiB a file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, 64 * 1024))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


@pytest.fixture
def no_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would keep what it compiles, cut off at the limit, and fail on it ever after."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")


@pytest.mark.slow
@pytest.mark.usefixtures("no_bytecode")
def test_full_disk_while_preparing(taught: Path, tmp_path: Path) -> None:
    big = tmp_path / "big.jsonl"
    big.write_bytes((taught / "train.jsonl").read_bytes() * 20)
    cache = tmp_path / "cache"
    where = (f"data.train={big}", f"data.cache={cache}", f"io.run_dir={tmp_path / 'run'}")
    result = run_process("train", taught / "config.yaml", *where, preexec_fn=limit_file_size)
    failed(result, 1, ("cache",))
    # the lock of the build holds nothing
    assert [file.suffix for file in cache.iterdir()] == [".lock"]


@pytest.mark.slow
@pytest.mark.usefixtures("no_bytecode")
def test_full_disk_while_saving(taught: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    where = f"io.run_dir={run}"
    result = run_process("train", taught / "config.yaml", where, preexec_fn=limit_file_size)
    failed(result, 1, ("step_",))
    # it is found before the first step, and nothing is left
    assert not run.exists()


def test_quarantine_sets_bad_lines_aside(taught: Path, tmp_path: Path) -> None:
    bad = b'{"prompt": "a", "teacher_text": 7}'
    path = bad_records(tmp_path, (taught / "train.jsonl").read_bytes() + bad + b"\n")
    result = run_command("data", "inspect", path, "--tokenizer", taught / "teacher", "--shapes", "512")
    assert result.returncode == 0, result.stderr
    assert "1 line was rejected; it is in" in result.stdout
    assert "line 49" in result.stdout
    assert (tmp_path / "bad.jsonl.rejected.jsonl").read_bytes() == bad + b"\n"
    # a store with lines left out does not serve a load that would have failed on them
    fails(
        2,
        "train",
        taught / "config.yaml",
        f"data.train={path}",
        f"io.run_dir={tmp_path / 'run'}",
        names=("bad.jsonl:49",),
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "kd.temperature=2",
            "kd.temperature: must be the temperature of the teacher's log-probabilities (1.0)",
        ),
        (
            "teacher.k=1000",
            "teacher.k: must be at most 487, the number of ids that teacher and student share",
        ),
        ("teacher.demonstrations=99", "teacher.demonstrations: more than the training records have to show"),
        ("arch.layers=3", "arch.layers: the model has 2 layers"),
        ("data.shape_probs=[1, 0, 0]", "data.shape_probs: must be above 0 for a shape that has rows ("),
        (
            "kd.hidden_state_weight=1",
            "kd.hidden_state_weight: must be 0 without a teacher beside the student",
        ),
        ("kd.prompt_kl_weight=1", "kd.prompt_kl_weight: must be 0 without a teacher beside the student"),
    ],
)
def test_what_the_config_asks_for_and_the_data_do_not_have(
    taught: Path, tmp_path: Path, override: str, message: str
) -> None:
    run = tmp_path / "run"
    fails(2, "train", taught / "config.yaml", override, f"io.run_dir={run}", names=(message,))
    assert not run.exists()


def test_a_k_above_the_vocabulary_is_refused_before_the_teacher_is_loaded(
    taught: Path, tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(taught / "teacher", teacher)
    store = f"teacher.store={tmp_path / 'store'}"
    options = (f"teacher.model={teacher}", store, "teacher.k=488")
    (teacher / "model.safetensors").write_bytes(b"damaged")
    fails(2, "teach", taught / "config.yaml", *options, names=("teacher.k: must be at most 487",))
    assert not (tmp_path / "store").exists()


def test_held_out_records_that_are_all_set_aside(taught: Path, tmp_path: Path) -> None:
    path = bad_records(tmp_path, b'{"x": 1}\n')
    aside = ("data.on_error=quarantine", "data.max_rejected_fraction=1")
    where = (f"data.validation={path}", f"io.run_dir={tmp_path / 'run'}")
    message = f"{path}: no record is left to validate on (data.validation)"
    fails(2, "train", taught / "config.yaml", *aside, *where, names=(message,))


def test_more_memory_than_there_is(taught: Path, tmp_path: Path) -> None:
    sizes = (
        "arch.init=scratch",
        "arch.d_model=80000000000",
        "arch.n_layers=1",
        "arch.n_heads=2",
        "arch.d_ff=8",
    )
    where = f"io.run_dir={tmp_path / 'run'}"
    fails(1, "train", taught / "config.yaml", *sizes, where, names=("out of memory; lower", "sizes of arch"))
