"""Help without Python's types: flags and arguments show none, and the usage line shows arguments as they are written.

No help ends in a full stop; docstrings and the texts of Typer do.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup


class _Plain:
    """What is different from Typer's classes, to be put before one of them."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**{**values, "help": _without_stop(values.get("help"))})

    def get_params(self, ctx: Any) -> list[Any]:
        """See Typer: the parameters with `--help`."""
        return [_plain(one) for one in super().get_params(ctx)]  # type: ignore[misc]


class PlainCommand(_Plain, TyperCommand):
    """A command with such a help, that reads `~` in paths which a shell leaves as they are: `--labels=~/labels.jsonl`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See Typer."""
        left = super().parse_args(ctx, args)
        for name, value in ctx.params.items():
            if isinstance(value, Path):
                ctx.params[name] = Path(os.path.expanduser(value))
        return left


class PlainGroup(_Plain, TyperGroup):
    """A group of commands with such a help."""


def _plain(parameter: Any) -> Any:
    """Replace what Typer calls to show a parameter."""
    shown: dict[str, Callable[..., str | None]] = {}
    if parameter.param_type_name == "argument":
        shown = {"display_type_rich": lambda ctx: None, "_usage_display_name": lambda: str(parameter.metavar or parameter.name)}
    elif parameter.is_flag:
        shown = {"display_type_rich": lambda ctx: None}
    for name, show in shown.items():
        if hasattr(parameter, name):
            setattr(parameter, name, show)
    if parameter.param_type_name == "option":
        parameter.help = _without_stop(parameter.help)
    return parameter


def _without_stop(text: str | None) -> str | None:
    return text and text.rstrip().removesuffix(".")
