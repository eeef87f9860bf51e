"""The command line: help that teaches, exit codes, one line an error, nothing heavy imported."""

import logging
import subprocess
import sys
import warnings
from pathlib import Path

import click
import pytest
from commands import run_command, run_process

from kdfast.cli import kdfast, main, train_main

CONFIGS = Path(__file__).parents[3] / "configs"
QUICKSTART = str(CONFIGS / "quickstart_llm.yaml")


def commands(group=kdfast, path=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


# Help


def test_the_commands_that_exist():
    assert sorted(map(" ".join, commands())) == [
        "bless",
        "chat",
        "config keys",
        "config show",
        "convert",
        "data audit",
        "data export",
        "data import bfcl",
        "data import smart_home",
        "data inspect",
        "data prepare",
        "data split",
        "data tokenizer",
        "eval",
        "export",
        "gate",
        "journal backup",
        "journal export",
        "journal show",
        "journal stats",
        "journal verify",
        "measure",
        "preflight",
        "report",
        "teach",
        "train",
    ]


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_help_says_what_shows_an_example_and_the_exit_codes(command, capsys):
    assert main([*command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: kdfast {' '.join(command)} ")
    assert f"kdfast {' '.join(command)} " in text.partition("\n")[2]
    assert "Exit codes: 0" in text
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize("group", ["", "config", "data", "data import", "journal"])
def test_group_help(group, capsys):
    assert main([*group.split(), "-h"]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("kdfast ")


def test_kdfast_train_is_kdfast_train(capsys):
    assert train_main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage: kdfast-train [OPTIONS] CONFIG [KEY=VALUE]...")
    assert train_main([QUICKSTART, "train.num_step=1"]) == 2
    assert capsys.readouterr().err == "error: train.num_step: unknown key, did you mean 'num_steps'?\n"


# config show, config keys


def test_config_show_prints_every_value_with_its_origin(capsys):
    assert main(["config", "show", QUICKSTART, "train.seed=7"]) == 0
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()}
    lines = Path(QUICKSTART).read_text().splitlines()
    shapes_line = next(number for number, line in enumerate(lines, 1) if line.startswith("  shapes:"))
    assert rows["train.seed"].split() == ["7", "override"]
    assert rows["kd.temperature"].split() == ["1.0", "default"]
    assert rows["data.shapes"].split() == ["[128,", "256,", "384,", "512]", f"{QUICKSTART}:{shapes_line}"]
    assert rows["arch.layers"].split()[0] == "null"
    assert "not used" in rows["arch.d_model"]
    assert len(rows) == 1 + sum(1 for _ in _keys())


def _keys():
    from kdfast.config import SECTIONS

    return ((name, key) for name, section in SECTIONS.items() for key in section.names())


def test_config_show_yaml_is_a_config(capsys, tmp_path):
    assert main(["config", "show", QUICKSTART, "train.seed=7", "--yaml"]) == 0
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(capsys.readouterr().out)
    from kdfast.config import load_config

    assert load_config(resolved) == load_config(QUICKSTART, ["train.seed=7"])


def test_config_show_estimates_a_student_from_scratch(capsys):
    assert main(["config", "show", str(CONFIGS / "student_9b_gqa.yaml")]) == 0
    text = capsys.readouterr().out
    per_layer = 4096 * (2 * 32 * 128 + 2 * 8 * 128) + 3 * 4096 * 16384 + 2 * 4096
    parameters = 2 * 32000 * 4096 + 36 * per_layer + 4096
    assert f"{parameters:,}" in text
    assert text.count(" GB") >= 4


def test_config_keys_lists_every_key(capsys):
    assert main(["config", "keys"]) == 0
    text = capsys.readouterr().out
    assert all(key in text for _, key in _keys())
    assert main(["config", "keys", "kd"]) == 0
    text = capsys.readouterr().out
    assert "kl_weight" in text
    assert "run_dir" not in text
    assert main(["config", "keys", "nope"]) == 2


# Bad input


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nope"], "error: No such command 'nope'. (see kdfast --help)"),
        (["trian"], "error: No such command 'trian'. Did you mean 'train'? (see kdfast --help)"),
        (["train"], "error: Missing argument 'CONFIG'. (see kdfast train --help)"),
        (["train", "none.yaml"], "error: no such config file: none.yaml"),
        (["teach", "none.yaml"], "error: no such config file: none.yaml"),
        (
            ["measure", ".", "--out", "o"],
            "error: Missing option '--prompts' (only a run folder has its own). (see kdfast measure --help)",
        ),
        (
            ["measure", "m", "--prompts", "p", "--out", "o", "--max-new-tokens", "0"],
            "error: Invalid value for '--max-new-tokens': 0 is not in the range x>=1. (see kdfast measure --help)",
        ),
        (
            ["measure", "m", "--prompts", "p", "--out", "o"],
            "error: model: no such directory; give a Hugging Face model directory or a run folder: m",
        ),
        (
            ["gate", "--candidate", ".", "--blessed", "b"],
            "error: Missing option '--prompts' (only a run folder has its own). (see kdfast gate --help)",
        ),
        (
            ["gate", "--candidate", "m", "--prompts", "p", "--max-new-tokens", "1"],
            "error: Invalid value for '--max-new-tokens': 1 is not in the range x>=2. (see kdfast gate --help)",
        ),
        (
            ["bless", "m", "--prompts", "p", "--out", "o"],
            "error: model: no such directory; give a Hugging Face model directory or a run folder: m",
        ),
        (["report"], "error: Missing argument 'RUN...'. (see kdfast report --help)"),
        (["report", "r"], "error: run: no such directory; give the io.run_dir of a `kdfast train`: r"),
        (["data", "prepare", "none.yaml"], "error: no such config file: none.yaml"),
        (["config", "show", "configs"], "error: no such config file: configs"),
        (["config", "show", "/"], "error: a config must be a YAML file, this is a directory: /"),
        (
            ["config", "show", QUICKSTART, "nope"],
            "error: override: must be section.key=value, such as train.num_steps=10, got 'nope'",
        ),
        (
            ["data", "inspect", "f", "--tokenizer", "t", "--shapes", "256,128"],
            "error: Invalid value for '--shapes': must be sorted and without repeats, got [256, 128]"
            " (see kdfast data inspect --help)",
        ),
        (
            ["data", "inspect", "f", "--tokenizer", "t", "--shapes", "a"],
            "error: Invalid value for '--shapes': must be lengths like 512,1024,2048, got 'a'"
            " (see kdfast data inspect --help)",
        ),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(arguments, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err == line + "\n"
    assert captured.out == ""


def test_error_in_a_config_file_says_where(tmp_path, capsys):
    path = tmp_path / "bad.yaml"
    path.write_text("train:\n  num_steps: 0\n")
    assert main(["train", str(path)]) == 2
    assert capsys.readouterr().err == f"error: train.num_steps: must be an integer >= 1, got 0 ({path}:2)\n"


@pytest.mark.parametrize("source", ["none.whl", "."])
def test_import_of_what_is_no_bfcl(source, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "import", "bfcl", source, "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


# As a process


def test_help_imports_nothing_heavy():
    heavy = "{'torch', 'transformers', 'pyarrow', 'numpy', 'rich', 'kdfast._rust'}"
    code = (
        "import sys, kdfast.cli; kdfast.cli.main(['train', '-h']);"
        f"loaded = {heavy} & sys.modules.keys(); assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_process_exit_code_and_streams(tmp_path):
    arguments = ("config", "show", tmp_path / "none.yaml")
    for done in (run_process(*arguments), run_command(*arguments)):  # as other tests run commands
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"error: no such config file: {tmp_path / 'none.yaml'}\n"


def test_a_command_run_in_process_shows_its_logs_and_warnings(monkeypatch):
    def noisy(_):
        logging.getLogger("some.library").warning("a log")
        warnings.warn("a warning", UserWarning, stacklevel=1)
        warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
        return 3

    monkeypatch.setattr("commands.main", noisy)
    for _ in range(2):
        done = run_command("train")
        assert (done.returncode, done.stdout) == (3, "")
        log, place, line = done.stderr.splitlines()
        assert (log, line) == ("a log", '  warnings.warn("a warning", UserWarning, stacklevel=1)')
        assert place.endswith("UserWarning: a warning")
