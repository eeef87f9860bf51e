"""Keys that a user set and that do nothing, because of what another key says. No torch in here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdfast.config import Config


@dataclass(frozen=True)
class Idle:
    """Keys that do nothing under a condition.

    Attributes:
        section: their section.
        keys: their names; () = all keys of the section but `but`.
        when: whether they do nothing.
        why: what makes them so.
        but: keys that `keys=()` leaves out.
    """

    section: str
    keys: tuple[str, ...]
    when: Callable[[Config], bool]
    why: str
    but: tuple[str, ...] = ()


_LENGTH = ("length_form", "length_slope", "length_hinge", "length_aggregate", "length_ema_decay")
_ASKING = ("max_new_tokens", "temperature", "answers_per_prompt", "journal")
_PAYING = (
    "budget", "max_retries", "max_unknown_retries", "ask_refused_again", "max_failures_in_a_row", "terms",
    "redact",
)  # fmt: skip

TABLE: tuple[Idle, ...] = (
    Idle("kd", ("jsd_beta",), lambda c: c.kd.divergence != "generalized_jsd", "kd.divergence is another"),
    Idle("kd", ("skew_alpha",), lambda c: c.kd.divergence != "skew_kl", "kd.divergence is another"),
    Idle(
        "kd",
        ("divergence", "temperature"),
        lambda c: not (c.kd.kl_weight or c.kd.prompt_kl_weight or (c.quant.enabled and c.quant.self_weight)),
        "kd.kl_weight is 0",
    ),
    Idle("kd", _LENGTH, lambda c: not c.kd.length_weight, "kd.length_weight is 0"),
    Idle(
        "kd",
        ("length_quantile",),
        lambda c: not c.kd.length_weight or c.kd.length_form != "quantile",
        "kd.length_form is not 'quantile', or kd.length_weight is 0",
    ),
    Idle(
        "kd",
        ("max_preamble_tokens",),
        lambda c: not c.kd.early_tool_preamble_weight,
        "kd.early_tool_preamble_weight is 0",
    ),
    Idle(
        "kd",
        ("early_tool_warmup_steps",),
        lambda c: not early_tool_weights(c),
        "the early-tool weights are 0",
    ),
    Idle(
        "kd",
        ("name_weight", "args_weight"),
        lambda c: not (c.kd.ce_teacher_weight or c.kd.ce_truth_weight),
        "kd.ce_teacher_weight and kd.ce_truth_weight are 0",
    ),
    Idle(
        "data",
        ("max_rejected_fraction",),
        lambda c: c.data.on_error == "raise",
        "data.on_error is 'raise', so that one bad line stops the load",
    ),
    Idle(
        "data",
        ("shape_upweight_factor",),
        lambda c: not c.data.shape_upweight_every,
        "data.shape_upweight_every is 0",
    ),
    Idle("teacher", _ASKING, lambda c: c.teacher.prompts is None, "teacher.prompts is not set"),
    Idle("teacher", _PAYING, lambda c: c.teacher.kind == "local", "teacher.kind is 'local'"),
    Idle(
        "teacher",
        ("store",),
        lambda c: not c.kd.reads_store(live_teacher=c.teacher.live),
        "no enabled loss reads a teacher store",
    ),
    Idle(
        "teacher", ("samples",), lambda c: not c.kd.sampled_kl_weight, "kd.sampled_kl_weight is 0"
    ),
    Idle("api", (), lambda c: c.teacher.kind == "local", "teacher.kind is 'local': set it to 'api'"),
    Idle("price", (), lambda c: c.teacher.kind == "local", "teacher.kind is 'local': set it to 'api'"),
    Idle(
        "train",
        ("validate_every_steps", "validation_rows"),
        lambda c: c.data.validation is None,
        "data.validation is not set",
    ),
    Idle("speed", (), lambda c: c.data.validation is None, "data.validation is not set"),
    Idle(
        "speed",
        (),
        lambda c: not c.speed.every_validations,
        "speed.every_validations is 0",
        but=("every_validations",),
    ),
)  # fmt: skip


def early_tool_weights(config: Config) -> float:
    """The sum of the early-tool weights."""
    kd = config.kd
    return (
        kd.early_tool_ce_weight
        + kd.early_tool_prior_weight
        + kd.early_tool_preamble_weight
        + kd.early_tool_negative_weight
    )


def idle_keys(config: Config) -> dict[str, str]:
    """The keys that the user set to another value than the default, and that do nothing.

    Args:
        config: the config.

    Returns:
        dotted key -> why it does nothing.

    Example:
        >>> from kdfast.config import config_from_dict
        >>> config = config_from_dict(
        ...     {
        ...         "arch": {"init": "models/small"},
        ...         "data": {"train": "train.jsonl", "tokenizer": "models/small"},
        ...         "io": {"run_dir": "runs/first"},
        ...         "kd": {"jsd_beta": 0.3},
        ...     }
        ... )
        >>> idle_keys(config)
        {'kd.jsd_beta': 'kd.divergence is another'}
    """
    found: dict[str, str] = {}
    for section in config.sections():
        for key in sorted(section.unused()):
            found[f"{section.section}.{key}"] = f"another key of the section {section.section} makes it so"
    for idle in TABLE:
        if idle.when(config):
            keys = idle.keys or tuple(_names(config, idle.section) - set(idle.but))
            found |= {f"{idle.section}.{key}": idle.why for key in keys}
    return {key: found[key] for key in sorted(found) if _is_set(config, key)}


def keys_set(config: Config) -> list[str]:
    """The dotted keys that the user set, in a file, as an override or in Python."""
    return [key for key, origin in config.origins.items() if "." in key and origin != "default"]


def _names(config: Config, section: str) -> set[str]:
    return set(getattr(config, section).names())


def _is_set(config: Config, dotted: str) -> bool:
    section, _, key = dotted.partition(".")
    given = getattr(config, section)
    is_default = getattr(given, key) == given.default(key)
    return config.origins.get(dotted, "default") != "default" and not is_default
