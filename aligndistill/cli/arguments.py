"""Arguments and options that several commands share, and what they stand for."""

import os
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aligndistill.errors import ConfigError
from aligndistill.processes.log_format import LOG_FORMAT

if TYPE_CHECKING:
    from aligndistill.config.load import LoadedConfig
    from aligndistill.config.run import RunConfig


def complete_runs(incomplete: str) -> list[str]:
    """Folders of runs that begin like this."""
    from aligndistill.commands.completion import run_folders

    return run_folders(incomplete)


def complete_models(incomplete: str) -> list[str]:
    """Runs, and `RUN:STUDENT`."""
    from aligndistill.commands.completion import run_models

    return run_models(incomplete)


def complete_stages(incomplete: str) -> list[str]:
    """Names of stages."""
    from aligndistill.commands.completion import stage_names

    return stage_names(incomplete)


def complete_config(incomplete: str) -> list[str]:
    """Config files, and keys."""
    from aligndistill.commands.completion import config_arguments

    return config_arguments(incomplete)


ConfigArguments = Annotated[
    list[str],
    typer.Argument(
        metavar="CONFIG... [section.key=value...]",
        help="YAML files, merged from left to right, then overrides",
        autocompletion=complete_config,
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also show the folders of stages")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Hide progress; messages and the result are still printed")]
LogFormat = Annotated[
    Literal["text", "json"],
    typer.Option("--log-format", help="Write progress and messages as text, or as one JSON object per line"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object; everything else is written to standard error")]


def set_progress(quiet: bool, verbose: bool, log_format: Literal["text", "json"]) -> None:
    """Do what `--quiet`, `--verbose` and `--log-format` say, here and in the processes of a launcher.

    Raises:
        ConfigError: `--quiet` and `--verbose` are both given.
    """
    if log_format == "json":
        os.environ[LOG_FORMAT] = log_format
    if quiet and verbose:
        raise ConfigError("--quiet hides what --verbose shows: give one of them.")
    if quiet or verbose:
        from aligndistill.processes.progress import QUIET, VERBOSE

        os.environ[QUIET if quiet else VERBOSE] = "1"


def load(arguments: list[str]) -> "RunConfig":
    """The config of these files and overrides.

    Raises:
        ConfigError: it cannot be used.
    """
    return read(arguments).config


def read(arguments: list[str]) -> "LoadedConfig":
    """The same, with the places of its keys.

    Raises:
        ConfigError: it cannot be used.
    """
    from aligndistill.config.arguments import files_and_overrides
    from aligndistill.config.load import read_config

    return read_config(*files_and_overrides(arguments))
