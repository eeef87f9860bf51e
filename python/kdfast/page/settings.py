"""The section of settings: every value of the config, and the fingerprints of the run's inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kdfast.config import Config
from kdfast.runs.reading import Missing, RunFiles


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One key of the config.

    Attributes:
        key: the dotted path, such as `train.num_steps`.
        value: the value as YAML.
        default: the default as YAML; "required" if there is none.
        help: what the key means.
    """

    key: str
    value: str
    default: str
    help: str

    @property
    def changed(self) -> bool:
        """Whether the value is not the default."""
        return self.value != self.default


@dataclass(frozen=True, kw_only=True)
class SettingsSection:
    """What the page shows of the config.

    Attributes:
        sections: (name, settings).
        fingerprints: (name of the input, SHA-256 in hex).
        fingerprints_missing: why only the config's fingerprint is known; "" = the others are known too.
    """

    sections: Sequence[tuple[str, Sequence[Setting]]]
    fingerprints: Sequence[tuple[str, str]]
    fingerprints_missing: str

    @property
    def changed(self) -> list[Setting]:
        """The settings that differ from their defaults."""
        return [one for _, settings in self.sections for one in settings if one.changed]


def settings_section(files: RunFiles) -> SettingsSection:
    """Collects what the page shows of the config.

    Raises:
        DataError: a fingerprint of the speed report is not text; the message names file and key.
    """
    prints = {"config": files.config.fingerprint()}
    missing = ""
    if isinstance(files.speed, Missing):
        missing = f"Those of prompts, tokenizer and template are in the speed report. {files.speed.reason}"
    else:
        # The config may have changed since the measurement (say, more steps after a resume).
        found = {name: node.text() for name, node in files.speed["fingerprints"].items()}
        if found.get("config", prints["config"]) != prints["config"]:
            prints["config when speed was measured"] = found["config"]
        prints |= {name: value for name, value in found.items() if name != "config"}
    return SettingsSection(
        sections=[
            (section.section, _settings(files.config, section.section)) for section in files.config.sections()
        ],
        fingerprints=list(prints.items()),
        fingerprints_missing=missing,
    )


def _settings(config: Config, name: str) -> list[Setting]:
    section = getattr(config, name)
    values = section.to_dict()
    return [
        Setting(
            key=f"{name}.{key}",
            value=_written(values[key]),
            default=_default(section.default(key)),
            help=section.key(key).help,
        )
        for key in section.names()
    ]


def _default(value: Any) -> str:
    return "required" if value is dataclasses.MISSING else _written(value)


def _written(value: Any) -> str:
    """A value as YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    return str(value)
