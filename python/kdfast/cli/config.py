"""`kdfast config`: the values of a config, and all keys that a config can have."""

# ruff: noqa: D301 (click's mark for a paragraph to leave alone is a real backspace)

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdfast.cli.arguments import config_file, overrides
from kdfast.config import SECTIONS, Config, load_config
from kdfast.recipes.first_look.of_config import look_before_estimating

if TYPE_CHECKING:
    from rich.console import Console


@click.group()
def config() -> None:
    """Look at a config, or at every key that a config can have."""


@config.command()
@config_file
@overrides
@click.option("--yaml", "as_yaml", is_flag=True, help="Print the resolved config as YAML, and nothing else.")
def show(config_file: Path, overrides: tuple[str, ...], as_yaml: bool) -> None:
    """Show every resolved value of CONFIG with its origin.

    The origin is the line of the file, an override, or the default. A student that starts from scratch is
    also estimated: parameters, memory, disk. Nothing is read besides the config and, for the estimate, the
    tokenizer where arch.vocab_size is not given and the config.json of a live teacher.

    \b
    Examples:
      kdfast config show configs/student_9b_gqa.yaml
      kdfast config show configs/quickstart.yaml train.num_steps=10
      kdfast config show configs/quickstart.yaml --yaml > resolved.yaml

    \b
    Exit codes: 0 the config is valid; 2 it is not (the error names the key).
    """
    resolved = load_config(config_file, overrides)
    if as_yaml:
        click.echo(resolved.to_yaml(), nl=False)
        return
    console = _console()
    _print_values(console, resolved)
    if resolved.arch.from_scratch:
        look_before_estimating(resolved)
        _print_estimate(console, resolved)


@config.command()
@click.argument("section", required=False, type=click.Choice(list(SECTIONS)))
def keys(section: str | None) -> None:
    """List every key: what it means, what it accepts, its default.

    \b
    Examples:
      kdfast config keys
      kdfast config keys train

    \b
    Exit codes: 0; 2 no such section.
    """
    from rich.table import Table
    from rich.text import Text

    console = _console()
    for name in [section] if section else SECTIONS:
        described = SECTIONS[name]
        table = Table(title=Text(name), title_justify="left", title_style="bold", expand=False)
        for header in ("key", "default", "accepts", "meaning"):
            table.add_column(header, overflow="fold")
        for key in described.names():
            default = described.default(key)
            shown = "required" if default is dataclasses.MISSING else _plain(default)
            cells = (key, shown, described.describe(key), described.key(key).help)
            table.add_row(*(Text(cell) for cell in cells))
        console.print(table)


def _console() -> Console:
    """A console on standard output; into a pipe, which has no width, lines are not wrapped."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    return console


def _print_values(console: Console, resolved: Config) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for header in ("key", "value", "origin"):
        table.add_column(header, overflow="fold")
    for section in resolved.sections():
        for name in section.names():
            key = f"{section.section}.{name}"
            unused = name in section.unused()
            why = "not used: the loaded model decides it" if section.section == "arch" else "not used"
            origin = why if unused else resolved.origins[key]
            style = "dim" if unused or origin == "default" else ""
            cells = (key, _plain(getattr(section, name)), origin)
            table.add_row(*(Text(cell) for cell in cells), style=style)
    console.print(table)


def _print_estimate(console: Console, resolved: Config) -> None:
    from rich.table import Table

    from kdfast.student import estimate

    table = Table(title="estimate", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("what")
    table.add_column("how much", justify="right")
    for name, amount in estimate(resolved).items():
        if name.endswith("_bytes"):
            table.add_row(name.removesuffix("_bytes").replace("_", " "), f"{amount / 1e9:,.3f} GB")
        else:
            table.add_row(name.replace("_", " "), f"{amount:,}")
    console.print(table)


def _plain(value: object) -> str:
    """A value as it is written in a config file."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(map(_plain, value))}]" if isinstance(value, tuple) else str(value)
