"""A wrong path or key is said at once: before torch and transformers, which take seconds to import."""

import json
import subprocess
import sys

import tiny
from tiny_run import write_records


def test_mistakes_are_said_before_anything_heavy_is_imported(tmp_path):
    mistakes = {name: [str(word) for word in words] for name, words in _mistakes(tmp_path).items()}
    code = (
        "import json, sys; from kdfast.cli import main\n"
        "for name, arguments in json.loads(sys.argv[1]).items():\n"
        "    code = main(arguments)\n"
        "    heavy = {'torch', 'transformers', 'pyarrow'} & sys.modules.keys()\n"
        "    assert code in (2, 5) and not heavy, (name, code, heavy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(mistakes)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == len(mistakes)
    assert all(line.startswith("error: ") for line in done.stderr.splitlines())


def _mistakes(directory):
    """Mistakes by what is wrong, each with the command's arguments."""
    records = write_records(directory / "records.jsonl", range(8))
    array = directory / "array.jsonl"
    array.write_text('[{"prompt": "a"}]')
    tokenizer = tiny.write_tokenizer(directory / "tokenizer")
    model = tiny.write_tokenizer(directory / "model")
    (model / "config.json").write_text("{}")
    config = directory / "config.yaml"
    config.write_text(
        f"data: {{train: {records}, tokenizer: {tokenizer}}}\narch: {{init: {model}}}\n"
        f"teacher: {{model: {model}, store: {directory / 'store'}}}\nio: {{run_dir: {directory / 'run'}}}\n"
    )
    none, out = directory / "none", directory / "out.json"
    running = ("--prompts", records, "--out", out)
    return {
        "unknown key": ("train", config, "train.num_step=1"),
        "no records": ("train", config, f"data.train={none}"),
        "records of another kind": ("train", config, f"data.train={array}"),
        "no held-out records": ("teach", config, f"data.validation={none}"),
        "no tokenizer": ("data", "prepare", config, f"data.tokenizer={none}"),
        "no template": ("train", config, "data.template=none.jinja"),
        "no first weights": ("train", config, f"arch.init={none}"),
        "no teacher": ("teach", config, f"teacher.model={none}"),
        "not taught yet": ("train", config),
        "no baseline": ("train", config, f"gates.baseline={none}"),
        "a run in a file": ("train", config, f"io.run_dir={records}"),
        "eval: no model": ("eval", none, *running),
        "eval: no model in it": ("eval", tokenizer, *running),
        "measure: no prompts": ("measure", model, "--prompts", none, "--out", out),
        "measure: prompts of another kind": ("measure", model, "--prompts", array, "--out", out),
        "eval: a directory to write": ("eval", model, "--prompts", records, "--out", directory),
        "eval: no template": ("eval", model, *running, "--template", none),
        "bless: no model": ("bless", none, *running),
        "gate: no blessed model": ("gate", "--candidate", model, "--blessed", none, "--prompts", records),
        "gate: no baseline": ("gate", "--candidate", model, "--baseline", none, "--prompts", records),
        "gate: no gate": ("gate", "--candidate", model, "--prompts", records, "gates.enabled=[]"),
        "gate: no report": ("gate", "--candidate-report", none),
        "gate: another kind of report": ("gate", "--candidate-report", model / "config.json"),
        "report: no run": ("report", none),
        "convert: no file": ("convert", none, out),
        "convert: no GGUF file": ("convert", records, out),
        "inspect: no records": ("data", "inspect", none, "--tokenizer", tokenizer),
        "inspect: no tokenizer": ("data", "inspect", records, "--tokenizer", none),
        "split: no records": ("data", "split", none, "--out", out),
        "audit: no store": ("data", "audit", tokenizer),
        "export: no records": ("data", "export", none, "--tokenizer", tokenizer, "--out", out),
        "export: there already": ("data", "export", records, "--tokenizer", tokenizer, "--out", directory),
    }
