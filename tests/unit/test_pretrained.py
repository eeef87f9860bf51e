"""A model is read, never run: code that lies beside it stays what it is, a file."""

import io
import json

import pytest
import torch
from tiny_models import byte_pieces, write_tokenizer

from kdfast.errors import DataError
from kdfast.pretrained import PromptMaker, load_causal_lm, load_model_config

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


def test_prompts_are_made_as_servers_make_them(tmp_path):
    """Arguments that are JSON text become objects first; nothing is added to the ids."""
    write_tokenizer(tmp_path)
    template = (
        "{% for m in messages %}{{ m.role }}:{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.function.arguments.city }}{% endfor %};{% endfor %}"
        "{% if add_generation_prompt %}>{{ extra }}{% endif %}"
    )
    (tmp_path / "chat_template.jinja").write_text(template)
    maker = PromptMaker(tmp_path)
    calls = [{"type": "function", "function": {"name": "f", "arguments": '{"city": "Rome"}'}}]
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "", "tool_calls": calls}]
    text = maker.apply_template(messages, None, {"extra": "go"})
    assert text == "user:hi;assistant:Rome;>go"
    assert maker.tokenize("hi<|im_end|>") == [*map(byte_pieces().index, "hi"), 258]
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('no tools here') }}")
    with pytest.raises(DataError, match="the template refuses: no tools here"):
        PromptMaker(tmp_path).apply_template(messages)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="transformers does not read the tokenizer"):
        PromptMaker(tmp_path)
