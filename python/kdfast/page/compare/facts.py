"""What numbers of several runs depend on: the inputs and settings that must be the same for them to be comparable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from kdfast.page.compare.run import Run
from kdfast.page.history import series
from kdfast.runs.node import Node
from kdfast.runs.reading import Missing, there

Kind = Literal["loss", "terms", "divergence", "calls", "speed"]
"""The kinds of numbers: the weighted sum of the losses, cross-entropy and agreement, the divergence, and so on."""

_DATA = {
    "data.validation": "held-out records",
    "data.tokenizer": "tokenizers",
    "data.template": "chat templates",
    "data.tool_call_format": "call formats",
}
"""What held-out tokens are made from; a checkpoint has a hash of each, the config only a path or a name."""
_TOKENS = ("train.validation_rows", "data.supervise")
_WEIGHED = ("kd.name_weight", "kd.args_weight")
_DIVERGENCE = ("teacher.k", "kd.divergence", "kd.temperature", "kd.jsd_beta", "kd.skew_alpha")
_NO_LOSS = ("chunk_rows", "on_nan", "early_tool_warmup_steps")
"""Keys of `kd` that change no validation."""
_OF_TERMS = {
    "length_weight": ("length_", "max_new_tokens"),
    "early_tool_preamble_weight": ("max_preamble_tokens",),
    "hidden_state_weight": ("hidden_state_",),
}
"""The beginnings of keys of `kd` that count only if this weight does."""
_OF_DIVERGENCES = {"kd.jsd_beta": "generalized_jsd", "kd.skew_alpha": "skew_kl"}


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Something that must be the same in two runs for their numbers to be comparable.

    Attributes:
        name: what it is, in the plural.
        values: its value in each run; None = not known.
        proven: whether equal values mean equal things; False = only the names are compared.
    """

    name: str
    values: Sequence[str | None]
    proven: bool = True


def facts_by_kind(runs: Sequence[Run]) -> dict[Kind, tuple[list[bool], list[Fact]]]:
    """For each kind of number: which runs have such numbers, and what these depend on.

    Raises:
        DataError: a file is not as `kdfast train` writes it; names file and key.
    """
    data = [_data_fact(runs, key, name) for key, name in _DATA.items()]
    data.append(Fact(name="longest shapes", values=[str(run.files.config.data.shapes[-1]) for run in runs]))
    data += _config_facts(runs, _TOKENS)
    teacher = _teacher_fact(runs)
    validated = [bool(series(run.history.validation, "loss")) for run in runs]
    diverged = [bool(series(run.history.validation, "kl")) for run in runs]
    return {
        "loss": (validated, [*data, teacher, *_loss_facts(runs)]),
        "terms": (validated, [*data, *_config_facts(runs, _WEIGHED)]),
        "divergence": (diverged, [*data, teacher, *_config_facts(runs, _divergence_keys(runs))]),
        "calls": _calls(runs),
        "speed": _speed(runs),
    }


def _data_fact(runs: Sequence[Run], key: str, name: str) -> Fact:
    hashes = [run.saved.inputs.get(key) for run in runs]
    if all(hashes):
        return Fact(name=name, values=hashes)
    return Fact(name=name, values=[_configured(run, key) for run in runs], proven=False)


def _teacher_fact(runs: Sequence[Run]) -> Fact:
    """Whose log-probabilities; how many rows the store has does not count. A live teacher is asked, not the store."""
    hashes = [run.saved.inputs.get("teacher.store") for run in runs]
    live = [run.saved.inputs.get("teacher.live", "none") for run in runs]
    if all(hashes):
        stored = [str(one).partition(" with ")[0] for one in hashes]
        values = [
            own if beside == "none" else f"live {beside}" for own, beside in zip(stored, live, strict=True)
        ]
        return Fact(name="teachers", values=values)
    return Fact(name="teachers", values=[_configured(run, "teacher.model") for run in runs], proven=False)


def _config_facts(runs: Sequence[Run], keys: Sequence[str]) -> list[Fact]:
    return [Fact(name=f"values of {key}", values=[_configured(run, key) for run in runs]) for key in keys]


def _loss_facts(runs: Sequence[Run]) -> list[Fact]:
    """What the weighted sum is made from: the weights at the end of the run, as a validation takes these."""
    sections = [run.files.config.kd for run in runs]
    idle = tuple(
        beginning
        for weight, beginnings in _OF_TERMS.items()
        if not any(getattr(section, weight) for section in sections)
        for beginning in beginnings
    )
    facts = []
    for key in sections[0].names():
        if key in _NO_LOSS or key.endswith("_final_weight") or key.startswith(idle):
            continue
        if f"kd.{key}" in _DIVERGENCE and f"kd.{key}" not in _divergence_keys(runs):
            continue
        final = key.replace("_weight", "_final_weight")
        values = [
            last if (last := getattr(section, final, None)) is not None else getattr(section, key)
            for section in sections
        ]
        facts.append(Fact(name=f"values of kd.{key}", values=[str(value) for value in values]))
    return facts


def _divergence_keys(runs: Sequence[Run]) -> list[str]:
    used = {run.files.config.kd.divergence for run in runs}
    return [key for key in _DIVERGENCE if _OF_DIVERGENCES.get(key) in (None, *used)]


def _configured(run: Run, key: str) -> str:
    section, _, name = key.partition(".")
    return str(getattr(getattr(run.files.config, section), name))


def _calls(runs: Sequence[Run]) -> tuple[list[bool], list[Fact]]:
    files = [run.files.after for run in runs]
    nodes = [there(file) for file in files]
    facts = [
        _print(nodes, "prompts", "evaluation prompts"),
        _print(nodes, "truth", "right answers"),
        *(_decoding(nodes, key) for key in ("max_new_tokens", "formats")),
    ]
    return [not isinstance(file, Missing) for file in files], facts


def _speed(runs: Sequence[Run]) -> tuple[list[bool], list[Fact]]:
    nodes = [there(run.files.speed) for run in runs]
    facts = [
        _print(nodes, "prompts", "prompts"),
        Fact(name="machines", values=_values(nodes, lambda node: node["hardware"].find("key"))),
        _decoding(nodes, "max_new_tokens"),
    ]
    return [bool(run.speed.metrics) for run in runs], facts


def _print(nodes: Sequence[Node | None], key: str, name: str) -> Fact:
    return Fact(name=name, values=_values(nodes, lambda node: _inside(node, "fingerprints", key)))


def _decoding(nodes: Sequence[Node | None], key: str) -> Fact:
    return Fact(name=f"values of {key}", values=_values(nodes, lambda node: _inside(node, "decoding", key)))


def _inside(node: Node, section: str, key: str) -> Node | None:
    found = node.find(section)
    return found.find(key) if found is not None else None


def _values(nodes: Sequence[Node | None], read: Callable[[Node], Node | None]) -> list[str | None]:
    found = [read(node) if node is not None else None for node in nodes]
    return [str(node.value) if node is not None else None for node in found]
