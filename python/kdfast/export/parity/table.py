"""The parity checks, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from kdfast.export.parity.result import ParityCheck

STYLES = {"passed": "green", "failed": "bold red", "waived": "yellow", "not_measured": "yellow"}
_NAMES = {"not_measured": "not measured"}


def parity_table(checks: Mapping[str, ParityCheck]) -> Table:
    """One row per check: its name, how it ended, and what was measured. What is wrong needs more room than a cell.

    Args:
        checks: the checks by their names, as a manifest holds them.

    Example:
        >>> from rich.console import Console
        >>> check = ParityCheck(name="prompt", status="passed", figures={"compared": 32, "equal": 32})
        >>> Console(width=60).print(parity_table({"prompt": check}))
        Parity with what was trained
        ...
          prompt   passed   32 of 32 prompts equal
    """
    table = Table(title="Parity with what was trained", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("check", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("measured", overflow="fold")
    for name, check in checks.items():
        status = f"[{STYLES[check.status]}]{_NAMES.get(check.status, check.status)}[/]"
        table.add_row(name, status, escape("\n".join(filter(None, [measured(check), check.reason]))))
    return table


def measured(check: ParityCheck) -> str:
    """A check's figures in one line; "" = it has none.

    Example:
        >>> measured(ParityCheck(name="weights", status="passed", figures={"tensors": 12, "bytes": 2500}))
        '12 tensors, 2.5 kB'
    """
    told = {"weights": _weights, "logits": _logits, "prompt": _prompt, "calls": _calls}
    return "; ".join(told[check.name](check.figures))


def _weights(figures: Mapping[str, Any]) -> list[str]:
    if "tensors" not in figures:
        return []
    size = figures["bytes"]
    shown = f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
    loads = ["transformers loads them"] if figures.get("loads_in_transformers") else []
    return [f"{figures['tensors']:,} tensors, {shown}", *loads]


def _logits(figures: Mapping[str, Any]) -> list[str]:
    parts = []
    if "mean_kl" in figures:
        parts.append(f"mean KL {figures['mean_kl']:.5f} nats at {figures['positions']} positions")
    if "decoded_mean_kl" in figures:
        parts.append(f"{figures['decoded_mean_kl']:.5f} at {figures['decoded_positions']} decoded")
    if "top1_equal" in figures:
        parts.append(f"top-1 equal {figures['top1_equal']:.1%} of {figures['top1_positions']}")
    if "centred_cosine_mean" in figures:
        parts.append(f"centred cosine {figures['centred_cosine_mean']:.5f}")
    return parts


def _prompt(figures: Mapping[str, Any]) -> list[str]:
    parts = []
    if "equal" in figures:
        parts.append(f"{figures['equal']} of {figures['compared']} prompts equal")
        parts += [f"{name}: {count}" for name, count in figures.get("differences", {}).items()]
    if figures.get("left_out_special"):
        parts.append(f"{figures['left_out_special']} left out (special tokens in their content)")
    return parts


def _calls(figures: Mapping[str, Any]) -> list[str]:
    if "answers" not in figures:
        return []
    compared = figures["answers"] - figures["cut"]
    parsed = [f"{figures['equal']} of {compared} answers"] if compared and "equal" in figures else []
    if figures.get("forced_answers"):
        parsed.append(f"{figures['forced_equal']} of {figures['forced_answers']} right answers")
    parts = [f"{' and '.join(parsed)} parsed as by kdfast"] if parsed else []
    if figures.get("tools_sent") is False:
        parts.append("no tools are sent: they are baked in, and a client reads the calls in the text")
    if figures["ended"]:
        parts.append(f"{figures['stopped_right']} of {figures['ended']} ends right")
    else:
        parts.append("ends of answers not measured")
    if figures["cut"]:
        parts.append(f"{figures['cut']} cut off")
    if figures.get("refused"):
        parts.append(f"{figures['refused']} left out (refused by the server)")
    if figures.get("forced_refused"):
        parts.append(f"{figures['forced_refused']} right answers refused by the server")
    if figures.get("constrained"):
        parts.append(f"{figures['constrained']} changed by the server's grammar")
    return parts
