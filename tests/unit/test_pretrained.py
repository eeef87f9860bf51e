"""A model is read, never run: code that lies beside it stays what it is, a file."""

import io
import json

import pytest
import torch

from kdfast.errors import DataError
from kdfast.pretrained import load_causal_lm, load_model_config

CONFIG = {"model_type": "strange", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
CODE = """
from pathlib import Path
from transformers import PretrainedConfig
Path({ran!r}).touch()
class C(PretrainedConfig):
    model_type = "strange"
"""


@pytest.mark.parametrize("answer", ["y\n" * 9, ""], ids=["somebody types y", "nobody there"])
def test_code_of_a_model_is_not_run(tmp_path, monkeypatch, answer):
    model, ran = tmp_path / "model", tmp_path / "ran"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(CONFIG))
    (model / "code.py").write_text(CODE.format(ran=str(ran)))
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    with pytest.raises(DataError, match="model: "):
        load_model_config(model, error=DataError, name="model", families=None)
    with pytest.raises(DataError, match="model: "):
        load_causal_lm(model, dtype=torch.float32, error=DataError, name="model", families=None)
    assert not ran.exists()
