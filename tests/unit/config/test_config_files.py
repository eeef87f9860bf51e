"""Config files: read with their lines, saved whole or not at all, and loaded again as they were."""

import pickle
import resource
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdfast.config import (
    GatesConfig,
    config_from_dict,
    load_config,
    load_section,
)
from kdfast.errors import ConfigError

CONFIGS = Path(__file__).parents[3] / "configs"
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


def test_file_values_carry_their_line(tmp_path):
    path = write(
        tmp_path,
        "# a comment\narch: {init: m}\ndata:\n  train: a\n  tokenizer: b\n\ntrain:\n  seed: 4\n"
        "io: {run_dir: r}\nteacher:\n",
    )
    config = load_config(path, ["train.num_steps=70"])
    assert config.origins["train.seed"] == f"{path}:8"
    assert config.origins["data.tokenizer"] == f"{path}:5"
    assert config.origins["arch.init"] == f"{path}:2"
    assert config.origins["train.num_steps"] == "override"
    assert config.origins["teacher.k"] == "default"


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("train:\n  num_steps: 0\n", "train.num_steps: must be an integer >= 1, got 0", 2),
        ("train:\n  num_step: 5\n", "train.num_step: unknown key, did you mean 'num_steps'?", 2),
        ("train:\n  seed: 1\n  seed: 1\n", "train.seed: given twice, in lines 2 and 3; remove one", 3),
        ("io: {}\nio: {}\n", "io: given twice, in lines 1 and 2; remove one", 2),
        ("\ntrain: 5\n", "train: must be a mapping of keys to values, got 5", 2),
        ("num_steps: 5\n", "num_steps: unknown section, did you mean 'train.num_steps'?", 1),
        ("teacher:\ntrian:\n", "trian: unknown section, did you mean 'train'?", 2),
        (
            "1: {}\n",
            "1: unknown section, known are arch, data, teacher, api, price, optimizer, train, kd, quant, speed, gates, "
            "export, io",
            1,
        ),
        ("io:\n  run_dir: 2024-01-01\n", "io.run_dir: must be a path, got datetime.date(2024, 1, 1)", 2),
        (
            "arch: {d_model: 6, n_layers: 1, n_heads: 4, d_ff: 8}",
            "arch.d_model: must be a multiple of arch.n_heads (4) unless arch.head_dim is set, got 6",
            1,
        ),
    ],
)
def test_error_in_a_file_notes_its_line(tmp_path, text, message, line):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == message
    assert caught.value.__notes__ == [f"{path}:{line}"]
    assert pickle.loads(pickle.dumps(caught.value)).__notes__ == [f"{path}:{line}"]  # noqa: S301


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": empty; a config needs at least the sections data and io"),
        ("# nothing\n", ": empty; a config needs at least the sections data and io"),
        ("- a\n", ": must hold sections of keys, such as 'train: {num_steps: 100}'"),
        ("train:\n  seed: [1, 2\n", ":3:1: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("train:\n\tseed: 1\n", ":2:1: not valid YAML: found character '\\t' that cannot start any token"),
        ("a: 1\n---\nb: 2\n", ":2:1: not valid YAML: but found another document"),
        ("train: {seed: !!python/object:os.system x}", ":1:15: not valid YAML: could not determine a"),
        ("train: {seed: 2026-13-45}", ":1:15: not a valid value: month must be in 1..12"),
        (f"train: {{seed: {'9' * 5000}}}", ":1:15: not a valid value: "),
        ("train: *nowhere", ":1:8: not valid YAML: found undefined alias 'nowhere'"),
        (b"train: {seed: \xff}", ": not valid UTF-8 at byte 14; save it as UTF-8"),
        (b"train: {seed: \x01}", ": not valid YAML: special characters are not allowed at character 14"),
        ("[" * 1500, ": nested too deeply; a config is sections of keys"),
    ],
)
def test_broken_file(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}{message}")


def test_bom_crlf_and_merge_keys_are_read(tmp_path):
    text = "\ufeffdata: &d\r\n  train: a\r\n  tokenizer: b\r\narch: {init: m}\r\nio: {run_dir: r}\r\n"
    assert load_config(write(tmp_path, text)).data.train == Path("a")
    merged = text.replace("io:", "train: {<<: {seed: 3, num_steps: 50}, seed: 4}\r\nio:")
    train = load_config(write(tmp_path, merged)).train
    assert (train.seed, train.num_steps) == (4, 50)


def test_missing_file_and_directory(tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(FileNotFoundError, match=r"no such config file, did you mean '.*config\.yaml'\?"):
        load_config(tmp_path / "confg.yaml")
    with pytest.raises(FileNotFoundError, match="no such config file"):
        load_config(tmp_path / "no" / "config.yaml")
    with pytest.raises(IsADirectoryError, match="a config must be a YAML file"):
        load_config(tmp_path)


def test_to_dict_is_plain_and_loads_again():
    config = config_from_dict(SMALLEST, ["optimizer.learning_rate=1e-4", "data.cache=c"])
    plain = config.to_dict()
    assert list(plain) == [
        "arch",
        "data",
        "teacher",
        "api",
        "price",
        *["optimizer", "train", "kd", "quant", "speed", "gates", "export", "io"],
    ]
    assert plain["data"]["shapes"] == [512, 1024, 2048, 4096]
    assert plain["data"]["cache"] == "c"
    assert yaml.safe_load(yaml.safe_dump(plain)) == plain
    again = config_from_dict(plain)
    assert again == config
    assert again.fingerprint() == config.fingerprint()
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301


def test_fingerprint_depends_on_every_value():
    config = config_from_dict(SMALLEST)
    assert len(config.fingerprint()) == 64
    assert config_from_dict(SMALLEST, ["kd.args_weight=0.2"]).fingerprint() != config.fingerprint()


_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).filter(
    str.strip
)


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rate=st.floats(min_value=1e-300, max_value=1000),
    weight=st.floats(min_value=0, allow_infinity=False),
    shapes=st.lists(st.integers(1, 2**20), min_size=1, max_size=6, unique=True).map(sorted),
    path=_TEXT,
    seed=st.integers(0, 2**63 - 1),
)
def test_any_values_survive_saving(tmp_path, rate, weight, shapes, path, seed):
    config = config_from_dict(
        {
            "arch": SCRATCH,
            "data": {"train": path, "tokenizer": "t", "shapes": shapes},
            "optimizer": {"learning_rate": rate, "weight_decay": weight},
            "train": {"seed": seed},
            "io": {"run_dir": path},
        }
    )
    config.save(tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "config.yaml"
    config_from_dict(SMALLEST).save(path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            config_from_dict(SMALLEST, ["train.seed=1"]).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.yaml"]


def test_one_section_alone(tmp_path):
    # neither data nor io is needed, and what stands in other sections is not looked at
    path = write(tmp_path, "train: {num_step: 0}\ngates:\n  f1_drop: 0.02\n  min_pairs: 30\n")
    limits = load_section(GatesConfig, path, ["gates.min_pairs=40", "gates.enabled=[f1]"])
    assert (limits.f1_drop, limits.min_pairs, limits.enabled) == (0.02, 40, ("f1",))
    assert load_section(GatesConfig) == GatesConfig()


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("gates:\n  f1_dorp: 0\n", "gates.f1_dorp: unknown key, did you mean 'f1_drop'?", 2),
        ("gates:\n  min_pairs: 5\n", "gates.min_pairs: must be an integer >= 10, got 5", 2),
        ("gate: {}\n", "gate: unknown section, did you mean 'gates'?", 1),
        ("gates: 5\n", "gates: must be a mapping of keys to values, got 5", 1),
    ],
)
def test_error_in_one_section_notes_its_line(tmp_path, text, message, line):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_section(GatesConfig, path)
    assert str(caught.value) == message
    assert caught.value.__notes__ == [f"{path}:{line}"]


def test_keys_without_effect_may_change_on_resume():
    """A default of a newer version, of a feature that is off, does not stop an older run."""
    saved = config_from_dict(SMALLEST, ["kd.hidden_state_form=mse", "quant.warmup_steps=7"])
    assert config_from_dict(SMALLEST).conflicts(saved) == []
    on = ["quant.enabled=true"]
    saved = config_from_dict(SMALLEST, [*on, "quant.warmup_steps=7"])
    assert config_from_dict(SMALLEST, on).conflicts(saved) == ["quant.warmup_steps: 5, the run has 7"]
    assert config_from_dict(SMALLEST).conflicts(saved)[0] == "quant.enabled: False, the run has True"
