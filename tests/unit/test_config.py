"""The config: values validated, defaults applied, every error by name, every shipped config sound."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kdfast.config import (
    SECTIONS,
    ArchConfig,
    DataConfig,
    IOConfig,
    KDConfig,
    OptimizerConfig,
    TeacherConfig,
    TrainConfig,
    config_from_dict,
    load_config,
)
from kdfast.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
SCRATCH = {"d_model": 64, "n_layers": 2, "n_heads": 4, "d_ff": 128}
SMALLEST = {
    "arch": SCRATCH,
    "data": {"train": "train.jsonl", "tokenizer": "tokenizer.json"},
    "io": {"run_dir": "runs/a"},
}


def write(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(*overrides, values=SMALLEST):
    with pytest.raises(ConfigError) as caught:
        config_from_dict(values, overrides)
    return str(caught.value)


# Defaults


def test_defaults_are_those_of_the_design():
    config = config_from_dict(SMALLEST)
    assert config.kd == KDConfig(
        kl_weight=0.5,
        ce_teacher_weight=0.3,
        ce_truth_weight=0.2,
        temperature=1.0,
        name_weight=0.15,
        args_weight=0.15,
    )
    assert config.data.shapes == (512, 1024, 2048, 4096)
    assert (config.data.shape_probs, config.data.supervise, config.data.on_error) == (
        "natural",
        "last",
        "raise",
    )
    assert (config.data.max_rejected_fraction, config.data.max_line_bytes) == (0.01, 67108864)
    assert (config.data.prefix_tokens, config.data.allow_reasoning, config.data.template) == (
        25,
        False,
        "auto",
    )
    assert (config.data.tool_call_format, config.data.invalid_calls) == ("auto", "reject")
    assert (config.teacher.model, config.teacher.store, config.teacher.k) == (None, None, 32)
    assert (config.train.dtype, config.train.device, config.train.seed) == ("fp32", "auto", 0)
    assert config.optimizer.betas == (0.9, 0.95)
    assert set(config.origins.values()) == {"default", "given"}
    assert config.origins["train.num_steps"] == "default"
    assert config.origins["arch.d_model"] == "given"


def test_every_key_has_help_and_words_for_what_it_accepts():
    for section in SECTIONS.values():
        for name in section.names():
            assert section.key(name).help.endswith("."), name
            assert section.describe(name)
    assert TrainConfig.describe("num_steps") == "an integer >= 1"
    assert DataConfig.describe("shape_probs") == "'natural', 'production' or a list of numbers >= 0"
    assert OptimizerConfig.describe("betas") == "a list of 2 numbers >= 0 and < 1"
    assert ArchConfig.describe("layers") == "an integer >= 0, a list of integers >= 0 or null"
    assert TeacherConfig.describe("model") == "a path or null"


# Values: right and wrong


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("optimizer.learning_rate=1e-4", 1e-4),  # YAML 1.1 reads this one as text
        ("optimizer.learning_rate=1", 1.0),
        ("optimizer.learning_rate=.5E-3", 5e-4),
        ("optimizer.betas=[0, 0.5]", (0.0, 0.5)),
        ("train.seed=9223372036854775807", 2**63 - 1),
        ("data.shapes=[128, 256]", (128, 256)),
        ("data.shape_probs=production", "production"),
        ("data.shape_probs=[4, 3, 2, 1e-1]", (4.0, 3.0, 2.0, 0.1)),
        ("data.template=my/chat.jinja", "my/chat.jinja"),
        ("data.validation=null", None),
        ("data.validation=", None),
        ("data.train=a=b.jsonl", Path("a=b.jsonl")),
        ("io.run_dir='5'", Path("5")),
        ("io.run_dir=~/runs", Path.home() / "runs"),
        (" io.tensorboard =true", True),
    ],
)
def test_override_is_read_as_yaml_in_the_keys_type(override, value):
    config = config_from_dict(SMALLEST, [override])
    section, _, name = override.partition("=")[0].strip().partition(".")
    found = getattr(getattr(config, section), name)
    assert found == value
    assert type(found) is type(value)
    assert config.origins[f"{section}.{name}"] == "override"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.num_steps=0", "train.num_steps: must be an integer >= 1, got 0"),
        ("train.num_steps=1.5", "train.num_steps: must be an integer >= 1, got 1.5"),
        ("train.num_steps=true", "train.num_steps: must be an integer >= 1, got True"),
        ("train.num_steps=ten", "train.num_steps: must be an integer >= 1, got 'ten'"),
        ("train.num_steps=", "train.num_steps: must be an integer >= 1, got None"),
        ("train.seed=-1", "train.seed: must be an integer >= 0 and <= 9223372036854775807, got -1"),
        ("train.dtype=fp16", "train.dtype: must be 'fp32' or 'bf16', got 'fp16'"),
        (
            "train.device=gpu",
            "train.device: must be 'auto', 'cpu', 'cuda' or 'mps', got 'gpu'",
        ),
        (
            "optimizer.learning_rate=.nan",
            "optimizer.learning_rate: must be a number > 0 and <= 1000, got nan",
        ),
        (
            "optimizer.learning_rate=.inf",
            "optimizer.learning_rate: must be a number > 0 and <= 1000, got inf",
        ),
        (
            "optimizer.learning_rate=1e999",
            "optimizer.learning_rate: must be a number > 0 and <= 1000, got '1e999'",
        ),
        ("optimizer.learning_rate=0", "optimizer.learning_rate: must be a number > 0 and <= 1000, got 0"),
        (
            "optimizer.learning_rate='0.1'",
            "optimizer.learning_rate: must be a number > 0 and <= 1000, got '0.1'",
        ),
        (
            "optimizer.learning_rate=false",
            "optimizer.learning_rate: must be a number > 0 and <= 1000, got False",
        ),
        (
            "optimizer.betas=[0.9]",
            "optimizer.betas: must be a list of 2 numbers >= 0 and < 1, got [0.9]",
        ),
        (
            "optimizer.betas=[0.9, 1.0]",
            "optimizer.betas: must be a list of 2 numbers >= 0 and < 1, got [0.9, 1.0]",
        ),
        ("io.tensorboard=1", "io.tensorboard: must be true or false, got 1"),
        ("io.run_dir=5", "io.run_dir: must be a path, got 5"),
        ("io.run_dir=''", "io.run_dir: must be a path, got ''"),
        ('io.run_dir="a\\0b"', "io.run_dir: must be a path, got 'a\\x00b'"),
        ("data.shapes=[]", "data.shapes: must be a list of at least one length, got []"),
        ("data.shapes=512", "data.shapes: must be a list of integers >= 1 and <= 1048576, got 512"),
        (
            "data.shapes=[128, '256']",
            "data.shapes: must be a list of integers >= 1 and <= 1048576, got [128, '256']",
        ),
        ("data.shapes=[0, 256]", "data.shapes: must be a list of integers >= 1 and <= 1048576, got [0, 256]"),
        ("data.shapes=[256, 128]", "data.shapes: must be sorted and without repeats, got [256, 128]"),
        ("data.shapes=[128, 128]", "data.shapes: must be sorted and without repeats, got [128, 128]"),
        (
            "data.shape_probs=[0.5, 0.5]",
            "data.shape_probs: must be one weight for each of the 4 data.shapes, got [0.5, 0.5]",
        ),
        (
            "data.shape_probs=[0, 0, 0, 0]",
            "data.shape_probs: must be weights with a sum above 0, got [0.0, 0.0, 0.0, 0.0]",
        ),
        (
            "data.shape_probs=uniform",
            "data.shape_probs: must be 'natural', 'production' or a list of numbers >= 0, got 'uniform'",
        ),
        (
            "data.template=chatml",
            "data.template: must be 'auto', 'hermes', 'tokenizer' or the path of a .jinja file, got 'chatml'",
        ),
        (
            "data.validation=train.jsonl",
            "data.validation: must be another file than data.train, got 'train.jsonl'",
        ),
        ("arch.n_kv_heads=3", "arch.n_kv_heads: must be a divisor of arch.n_heads (4), got 3"),
        (
            "arch.d_model=66",
            "arch.d_model: must be a multiple of arch.n_heads (4) unless arch.head_dim is set, got 66",
        ),
        (
            "arch.head_dim=7",
            "arch.head_dim: must be even (rotary positions turn pairs; null = d_model / n_heads), got 7",
        ),
        (
            "arch.layers=2",
            "arch.layers: must be null when arch.init is 'scratch' (use arch.n_layers), got 2",
        ),
        (
            "arch.freeze_embeddings=true",
            "arch.freeze_embeddings: must be false when arch.init is 'scratch', got True",
        ),
        (
            "arch.max_position_embeddings=1024",
            "arch.max_position_embeddings: must be at least the largest of data.shapes (4096), got 1024",
        ),
        (
            "optimizer.warmup_steps=1001",
            "optimizer.warmup_steps: must be at most train.num_steps (1000), got 1001",
        ),
        ("train.eval_prompts=8", "train.eval_prompts: must be 0 unless data.validation is set, got 8"),
        (
            "train.fail_on_gate=true",
            "train.fail_on_gate: must be false unless data.validation is set (no gate would be judged), got True",
        ),
        ("gates.f1_drop=2", "gates.f1_drop: must be a number >= 0 and <= 1, got 2"),
        ("gates.baselin=x", "gates.baselin: unknown key, did you mean 'baseline'?"),
        (
            "train.min_valid_calls_fraction=0.5",
            "train.min_valid_calls_fraction: must be 0 unless train.eval_prompts is above 0"
            " (nothing would be measured), got 0.5",
        ),
        (
            "teacher.demonstrations=2",
            "teacher.demonstrations: must be 0 without teacher.model (there is nobody to show them to),"
            " got 2",
        ),
        (
            "teacher.model=models/t",
            "teacher.store: required beside teacher.model unless teacher.live is true; set it to the directory that"
            " keeps its log-probabilities",
        ),
        # Keys and overrides that are none
        ("train.num_step=10", "train.num_step: unknown key, did you mean 'num_steps'?"),
        (
            "train.learning_rate=1e-4",
            "train.learning_rate: unknown key, did you mean 'optimizer.learning_rate'?",
        ),
        ("io.zzz=1", "io.zzz: unknown key, known are run_dir, tensorboard, final"),
        ("trian.num_steps=1", "trian: unknown section, did you mean 'train'?"),
        (
            "zzz.a=1",
            "zzz: unknown section, known are arch, data, teacher, api, price, optimizer, train, kd, quant, speed, "
            "gates, export, io",
        ),
        (
            "num_steps=1",
            "override: must be section.key=value, such as train.num_steps=10, got 'num_steps=1'",
        ),
        ("train=1", "override: must be section.key=value, such as train.num_steps=10, got 'train=1'"),
        (
            "train.num_steps",
            "override: must be section.key=value, such as train.num_steps=10, got 'train.num_steps'",
        ),
        ("train.num_steps.x=1", "train.num_steps.x: unknown key, did you mean 'num_steps'?"),
    ],
)
def test_wrong_override_names_the_key_what_is_allowed_and_the_value(override, message):
    assert refusal(override) == message


def test_override_that_is_no_yaml():
    message = refusal("data.shapes=[1, 2")
    assert message.startswith("data.shapes: not valid YAML (")
    assert message.endswith("got '[1, 2'")


def test_production_mix_knows_up_to_four_shapes():
    assert "knows up to 4, there are 5" in refusal(
        "data.shapes=[1, 2, 3, 4, 5]", "data.shape_probs=production"
    )


def test_long_values_are_cut_in_messages():
    message = refusal(f"data.shapes=[{', '.join(['x'] * 200)}]")
    assert message.endswith("...")
    assert len(message) < 200


@pytest.mark.parametrize("missing", ["d_model", "n_layers", "n_heads", "d_ff"])
def test_from_scratch_needs_its_sizes(missing):
    arch = {name: size for name, size in SCRATCH.items() if name != missing}
    assert refusal(values=SMALLEST | {"arch": arch}).startswith(f"arch.{missing}: required when arch.init is")


@pytest.mark.parametrize(("section", "key"), [("data", "train"), ("data", "tokenizer"), ("io", "run_dir")])
def test_required_keys(section, key):
    values = {name: dict(keys) for name, keys in SMALLEST.items()}
    del values[section][key]
    kind = "a path or a list of paths" if key == "train" else "a path"
    assert refusal(values=values).startswith(f"{section}.{key}: required; set it to {kind} (")


def test_sizes_are_refused_where_a_loaded_model_decides_them():
    values = SMALLEST | {"arch": {"init": "models/m", "n_kv_heads": 2}}
    assert refusal(values=values).startswith(
        "arch.n_kv_heads: must be left out unless arch.init is 'scratch'"
    )
    assert ArchConfig(init="models/m").unused() >= {"d_model", "rope_theta"}
    assert ArchConfig(**SCRATCH).unused() == set()


def test_init_teacher_needs_a_teacher():
    values = SMALLEST | {"arch": {"init": "teacher"}}
    assert refusal(values=values).startswith("arch.init: 'teacher' needs teacher.model")
    config = config_from_dict(values, ["teacher.model=m", "teacher.store=s", "arch.layers=[0, 5]"])
    assert config.arch.layers == (0, 5)


@pytest.mark.parametrize("layers", ["0", "[]", "[3, 1]", "[1, 1]", "[-1]", "true"])
def test_layers_that_cannot_be(layers):
    values = SMALLEST | {"arch": {"init": "models/m"}}
    assert refusal(f"arch.layers={layers}", values=values).startswith("arch.layers: must be ")


def test_sections_check_themselves_in_python_too():
    assert DataConfig(train="a", tokenizer="b", shapes=[128]).shapes == (128,)
    assert isinstance(IOConfig(run_dir="runs/a").run_dir, Path)
    with pytest.raises(
        ConfigError, match=r"^train.micro_batch_size: must be an integer >= 1 and <= 1048576, got 0$"
    ):
        TrainConfig(micro_batch_size=0)
    with pytest.raises(ConfigError, match=r"^optimizer.eps: "):
        OptimizerConfig(eps=math.nan)
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().seed = 3
    with pytest.raises(TypeError):
        TrainConfig(3)


# Files


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_loads_and_survives_saving(path, tmp_path):
    config = load_config(path)
    config.save(tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config


def test_student_9b_gqa():
    path = CONFIGS / "student_9b_gqa.yaml"
    assert yaml.safe_load(path.read_text()).keys() >= {"arch", "data", "optimizer", "train", "kd", "io"}
    config = load_config(path)
    arch = config.arch
    assert (arch.d_model, arch.n_layers, arch.n_heads, arch.n_kv_heads) == (4096, 36, 32, 8)
    assert (arch.head_dim, arch.d_ff, arch.vocab_size) == (128, 16384, 32000)
    assert config.data.shapes == (512, 1024, 2048, 4096)
    assert config.data.shape_probs == "production"
    assert (config.train.num_steps, config.train.dtype) == (200000, "bf16")
    assert config.kd == KDConfig()


def test_the_quickstart_of_a_language_model():
    config = load_config(CONFIGS / "quickstart_llm.yaml")
    assert config.data.shapes == (128, 256, 384, 512)
    assert (config.train.num_steps, config.train.batch_size) == (24, 8)
    assert (config.arch.init, config.arch.layers, config.arch.freeze_embeddings) == ("teacher", None, True)
    assert config.train.min_valid_calls_fraction == 0.5
    assert config.optimizer.learning_rate == 3e-4


# Saving and comparing


def test_what_may_change_on_resume():
    saved = config_from_dict(SMALLEST)
    allowed = ["train.num_steps=2000", "train.log_every_steps=5", "io.run_dir=moved", "data.workers=2"]
    assert config_from_dict(SMALLEST, allowed).conflicts(saved) == []
    changed = config_from_dict(SMALLEST, [*allowed, "train.seed=1", "data.shapes=[512]"])
    assert changed.conflicts(saved) == [
        "data.shapes: [512], the run has [512, 1024, 2048, 4096]",
        "train.seed: 1, the run has 0",
    ]


def test_config_imports_no_heavy_package():
    heavy = "{'torch', 'transformers', 'pyarrow', 'numpy', 'rich', 'click', 'kdfast._rust'}"
    code = f"import sys, kdfast.config; assert not {heavy} & sys.modules.keys(), {heavy} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
