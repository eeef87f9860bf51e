"""Section `export`: names, defaults, what has no effect."""

import pytest

from kdfast.config.export import ExportConfig
from kdfast.config.quant import QuantConfig
from kdfast.errors import ConfigError


def test_nothing_is_exported_by_default_and_then_no_other_key_counts():
    config = ExportConfig()
    assert config.targets == ()
    assert config.verify
    assert config.unused() == {"gguf_type", "verify", "waive", "license"}


@pytest.mark.parametrize(
    ("keys", "unused"),
    [
        ({"targets": ["gguf"]}, set()),
        ({"targets": ["hf"]}, {"gguf_type"}),
        ({"targets": ["gguf", "hf"], "verify": False}, {"waive"}),
    ],
)
def test_keys_without_effect(keys, unused):
    assert ExportConfig(**keys).unused() == unused


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("targets", ["coreml"]),
        ("targets", ["gguf", "gguf"]),
        ("targets", "gguf"),
        ("gguf_type", "q4_1"),
        ("waive", ["tokenizer"]),
        ("waive", ["number", "number"]),
        ("license", 3),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(key, value):
    with pytest.raises(ConfigError, match=rf"^export.{key}: must be "):
        ExportConfig(**{key: value})


@pytest.mark.parametrize(("format_", "other"), [("q4_0", "q8_0"), ("int8_channel", "q4_0"), ("q8_0", "f16")])
def test_a_student_under_quantisation_leaves_as_it_was_trained(format_, other):
    quant = QuantConfig(enabled=True, format=format_)
    own = "q4_0" if format_ == "q4_0" else "q8_0"
    for fine in (None, own):
        ExportConfig(targets=["gguf"], gguf_type=fine).check_quant(quant)
    ExportConfig(targets=["hf"], gguf_type=other).check_quant(quant)
    ExportConfig(targets=["gguf"], gguf_type=other).check_quant(QuantConfig(format=format_))
    with pytest.raises(ConfigError, match=rf"^export.gguf_type: must be null or '{own}' with quant.format"):
        ExportConfig(targets=["gguf"], gguf_type=other).check_quant(quant)
