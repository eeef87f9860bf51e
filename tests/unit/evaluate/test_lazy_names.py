"""Names of the package come when they are used: tables need no torch, and two functions are called as their modules."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import kdfast.evaluate
import kdfast.evaluate.generate
import kdfast.evaluate.summary


def test_tables_and_sums_are_made_without_torch() -> None:
    code = (
        "import sys, kdfast.evaluate.table, kdfast.evaluate.summary\n"
        "from kdfast.evaluate import summary\n"
        "assert summary([])['prompts'] == 0\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["generate", "summary"])
def test_a_function_is_not_hidden_by_the_module_of_its_name(name: str) -> None:
    module = sys.modules[f"kdfast.evaluate.{name}"]
    assert inspect.ismodule(module)
    assert getattr(kdfast.evaluate, name) is getattr(module, name)
    assert inspect.isfunction(getattr(kdfast.evaluate, name))


def test_every_promised_name_is_there_and_no_other() -> None:
    assert all(getattr(kdfast.evaluate, name) is not None for name in kdfast.evaluate.__all__)
    with pytest.raises(AttributeError, match=r"'kdfast\.evaluate' has no attribute 'evaluation_of'"):
        kdfast.evaluate.evaluation_of  # noqa: B018
