"""The finished student can leave: llama.cpp is there, the family fits, and a dry run gives what was trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdfast.config import Config
from kdfast.errors import ConfigError
from kdfast.llama_cpp import require_llama_cpp
from kdfast.llama_cpp.library import INSTALL, version
from kdfast.recipes.export.of_run import look_before_training
from kdfast.recipes.preflight.check import Check, Finding, failed, passed, skipped
from kdfast.runs.export_folder import TARGET_CHECKS, ExportFolder

if TYPE_CHECKING:
    from kdfast.recipes.preflight.made.small_run import Exported

_NO_TARGETS = skipped("export.targets is []")
_PROMPT = "prompt"


def extra_is_installed(config: Config) -> Finding:
    """llama.cpp is here, if an export is to be run in it."""
    if not config.export.targets:
        return _NO_TARGETS
    if not _needs_llama_cpp(config):
        return skipped("no export will be run in llama.cpp (export.targets, export.verify)")
    try:
        require_llama_cpp()
    except ConfigError as error:
        return failed(str(error), f"{INSTALL}, or export.verify=false")
    return passed(f"xllamacpp {version()} has all functions that are needed")


def family_can_leave(config: Config) -> Finding:
    """What is known of the real student before it is trained."""
    if not config.export.targets:
        return _NO_TARGETS
    if _needs_llama_cpp(config):
        try:
            require_llama_cpp()
        except ConfigError:
            return skipped("llama.cpp cannot be used here, see export.extra_is_installed")
    try:
        look_before_training(config)
    except ConfigError as error:
        return failed(str(error), "mend the key that it names, or leave the target out of export.targets")
    return passed(f"the student that arch.init names can leave as {' and '.join(config.export.targets)}")


def dry_run_is_what_was_trained(config: Config, exports: Exported) -> Finding | list[Finding]:
    """The exports of the small student: weights, logits and calls."""
    if not config.export.targets:
        return _NO_TARGETS
    for target in config.export.targets:
        if target not in exports.folders:
            return failed(f"{target}: no export was made", "report this as a fault of kdfast")
        wrong = [name for name in ExportFolder(exports.folders[target]).failed_checks if name != _PROMPT]
        if wrong:
            remedy = "see docs/export.md; a difference that you accept is named in export.waive"
            text = f"{target}: the export differs from what was trained in {' and '.join(wrong)}"
            return failed(text, remedy, *_problems(exports.folders[target], wrong))
    if not config.export.verify:
        return skipped("export.verify is false: the exports were made and not run")
    found = [one for target in config.export.targets for one in _measured(target, exports.folders[target])]
    return sorted(found, key=lambda one: one.status == "skip")


def _measured(target: str, folder: Path) -> Iterator[Finding]:
    """What was compared and is equal, and a finding for each check that was not made."""
    asked = [name for name in TARGET_CHECKS[target] if name != _PROMPT]
    unproven = [name for name in ExportFolder(folder).unverified if name in asked]
    proven = [name for name in asked if name not in unproven]
    if proven:
        yield passed(f"{target}: {', '.join(proven)} are those of the small student")
    for name in unproven:
        yield skipped(
            f"{target}: {name} not compared: {_parity(folder, name).get('reason') or 'nothing says why'}"
        )


def prompts_are_the_same(config: Config, exports: Exported) -> Finding:
    """The runtime makes the prompts that the student was trained on."""
    if not config.export.targets:
        return _NO_TARGETS
    seen = {}
    for target, folder in exports.folders.items():
        seen[target] = str(_parity(folder, _PROMPT).get("status", "not_measured"))
        if seen[target] == "failed":
            remedy = "set data.template to one that the runtime renders alike; see docs/export.md"
            text = f"{target}: the runtime makes other prompts of the same messages than training"
            return failed(text, remedy, *_problems(folder, [_PROMPT]))
    if "not_measured" in seen.values():
        return skipped("prompts were not compared (export.verify is false, or there were no records)")
    return passed(
        "the runtime makes the prompts that training made: " + ", ".join(f"{a} {b}" for a, b in seen.items())
    )


def _needs_llama_cpp(config: Config) -> bool:
    return "gguf" in config.export.targets and config.export.verify


def _parity(folder: Path, name: str) -> Mapping[str, Any]:
    """What the manifest says of a check."""
    found: Mapping[str, Any] = (ExportFolder(folder).document.get("parity") or {}).get(name) or {}
    return found


def _problems(folder: Path, names: Sequence[str]) -> list[str]:
    """What is wrong in these checks, a line each."""
    return [f"{name}: {problem}" for name in names for problem in _parity(folder, name).get("problems", ())]


CHECKS = (
    Check(
        name="export.extra_is_installed",
        proves="llama.cpp is installed, in which the export is run and compared.",
        look=extra_is_installed,
    ),
    Check(
        name="export.family_can_leave",
        proves="The targets can hold the student's family, tokenizer and weights.",
        look=family_can_leave,
    ),
    Check(
        name="export.dry_run_is_what_was_trained",
        proves="An export of the small student gives the weights, logits and calls that were trained.",
        look=dry_run_is_what_was_trained,
        owns=("exports",),
        slow=True,
    ),
    Check(
        name="export.prompts_are_the_same",
        proves="The runtime turns messages and tools into the prompts that the student was trained on.",
        look=prompts_are_the_same,
        slow=True,
    ),
)
