"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kdfast.config import DataConfig
from kdfast.config.choices import CALL_FORMATS
from kdfast.config.document import parse_value
from kdfast.errors import ConfigError

# click does not check whether the path exists. The code that opens it does: one message and one exit code for all.
PATH: click.ParamType[Any] = click.Path(path_type=Path)

config_file = click.argument("config_file", metavar="CONFIG", type=PATH)
overrides = click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
tokenizer = click.option(
    "--tokenizer", type=PATH, required=True, help="tokenizer.json, or a directory that holds one."
)
template = click.option(
    "--template",
    default=DataConfig.default("template"),
    show_default=True,
    help=DataConfig.key("template").help,
)


class JsonObject(click.ParamType[Any]):
    """`{"enable_thinking": false}`: a JSON object, or YAML's shorter way to write one."""

    name = "JSON"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """The object as a dict, checked as the config checks `data.template_kwargs`."""
        try:
            parsed = value if isinstance(value, dict) else parse_value(str(value))
            return dict(DataConfig.convert("template_kwargs", parsed) or {})
        except ConfigError as error:
            self.fail(str(error).removeprefix("data.template_kwargs: "), param, ctx)
        except ValueError as error:
            self.fail(f"must be a JSON object ({error}), got {value!r}", param, ctx)


template_kwargs = click.option(
    "--template-kwargs",
    type=JsonObject(),
    help="Variables that the chat template reads, a JSON object such as '{\"enable_thinking\": false}'.",
)

show_tools = click.option(
    "--hide-tools",
    "show_tools",
    is_flag=True,
    callback=lambda context, parameter, hidden: not hidden,  # noqa: ARG005 - click's signature
    help="Prompts show no tools, as with data.show_tools: false in a config.",
)

tool_call_format = click.option(
    "--tool-call-format",
    type=click.Choice(CALL_FORMATS),
    default=DataConfig.default("tool_call_format"),
    show_default=True,
    help=DataConfig.key("tool_call_format").help,
)


class Formats(click.ParamType[Any]):
    """`hermes,mistral`, `all`, or `auto`: an empty tuple."""

    name = "NAME,NAME..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """The names as a tuple, each once, in the order of `tool_call_formats`."""
        if isinstance(value, tuple):
            return value
        if value == "auto":
            return ()
        from kdfast._rust import tool_call_formats

        known = tool_call_formats()
        named = known if value == "all" else str(value).split(",")
        wrong = [name for name in named if name not in known]
        if wrong:
            self.fail(f"must be 'auto', 'all' or some of {', '.join(known)}, got {wrong[0]!r}", param, ctx)
        return tuple(name for name in known if name in named)


class Shapes(click.ParamType[Any]):
    """`128,256,512`, checked as the config checks `data.shapes`."""

    name = "INT,INT..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """The lengths as a tuple, ascending."""
        if isinstance(value, tuple):
            return value
        try:
            lengths = [int(part) for part in str(value).split(",")]
            return DataConfig(train=Path("-"), tokenizer=Path("-"), shapes=tuple(lengths)).shapes
        except ConfigError as error:
            self.fail(str(error).removeprefix("data.shapes: "), param, ctx)
        except ValueError:
            self.fail(f"must be lengths like 512,1024,2048, got {value!r}", param, ctx)
