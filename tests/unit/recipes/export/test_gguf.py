"""The target `gguf`: what is said of a grammar that is not written."""

import json

import pytest
from export_students import float_student
from rich.console import Console
from tiny_models import write_tokenizer

from kdfast.display import Display
from kdfast.recipes.export.gguf import make_gguf
from kdfast.recipes.export.request import ExportRequest
from kdfast.recipes.export.student import Student


def made(tmp_path, **changes):
    student = write_tokenizer(float_student(tmp_path / "student").directory)
    folder = tmp_path / "out"
    folder.mkdir()
    request = ExportRequest(model=student, target="gguf", out=folder, verify=False, **changes)
    return make_gguf(Student(request), folder, Display(Console(quiet=True)))


def records(path, *sets):
    lines = [
        {
            "messages": [{"role": "user", "content": "Hi"}],
            "truth_message": {"role": "assistant", "content": "Hello."},
            **({"tools": tools} if tools else {}),
        }
        for tools in sets
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def tool(name):
    return {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": {}}},
    }


def test_without_records_no_tools_are_known(tmp_path):
    assert made(tmp_path).manifest.not_measured == {"grammar": "no tools are known: name them with --tools"}


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ([[], []], "no tools are known: name them with --tools"),
        ([[tool("f")], [tool("g")]], "the records do not share one set of tools; name one with --tools"),
    ],
)
def test_records_without_one_set_of_tools(tmp_path, sets, said):
    prompts = records(tmp_path / "held_out.jsonl", *sets)
    assert made(tmp_path, prompts=prompts).manifest.not_measured == {"grammar": said}
