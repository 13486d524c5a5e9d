"""`aligndistill check`: everything that can be known about a run without running it."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import typer

from aligndistill.commands.check.files import missing
from aligndistill.commands.check.licences import unlicensed
from aligndistill.commands.check.recipes import doubts, impossible_batches
from aligndistill.commands.check.rows import check_rows
from aligndistill.commands.output import print_json
from aligndistill.config.adapter_defaults import adapter_defaults_line
from aligndistill.config.load import LoadedConfig, dump_config, written_out
from aligndistill.config.problems import Problem, Where
from aligndistill.config.resolve import resolved
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import KeyPath
from aligndistill.errors import UserError
from aligndistill.processes.progress import doing


@dataclass(frozen=True)
class Findings:
    """What was found, in the order of the config's lines.

    Attributes:
        errors: what would stop a run, one line each.
        error: the first of them, whose class has the exit code; None if there is none.
        warnings: what a run would do, but probably should not, one line each.
    """

    errors: tuple[str, ...]
    error: UserError | None
    warnings: tuple[str, ...]

    def show_warnings(self) -> None:
        """Print the warnings on standard error."""
        for line in self.warnings:
            print(f"warning: {line}", file=sys.stderr)

    def require_none(self) -> None:
        """Raise an error with everything that would stop a run.

        Raises:
            UserError: there are errors.
        """
        if self.error is not None:
            raise type(self.error)("\n".join(self.errors))


def examine(config: RunConfig, where: Callable[[KeyPath], Where] | None = None) -> Findings:
    """Look for what would stop a run: files, rows, functions, keys; and for settings that are probably not meant.

    Args:
        where: the place of a key, for the lines and their order.
    """
    sources = list(check_rows(config))
    found: list[tuple[KeyPath, UserError]] = [*missing(config), *impossible_batches(config)]
    found += [(one.key, one.error) for one in sources if one.error is not None]
    warned = [*doubts(config), *unlicensed(config), *(Problem(one.key, one.warning) for one in sources if one.warning is not None)]
    if where is not None:
        found.sort(key=lambda one: where(one[0]))
        warned.sort(key=lambda one: where(one.path))
    return Findings(
        errors=tuple(_line(Problem(key, str(error)), where) for key, error in found),
        error=found[0][1] if found else None,
        warnings=tuple(_line(problem, where) for problem in warned),
    )


def print_check(loaded: LoadedConfig, as_config: bool = False) -> None:
    """Print what was found.

    Args:
        as_config: print the config as a run reads it instead, to standard output; what was found is on standard error.

    Raises:
        UserError: with everything that would stop a run.
    """
    with doing("reading the config's files"):
        found = examine(loaded.config, loaded.where)
    found.show_warnings()
    if as_config:
        typer.echo(dump_config(as_read(loaded.config)), nl=False)
    found.require_none()
    if as_config:
        return
    if line := adapter_defaults_line(loaded.config):
        typer.echo(line)
    typer.echo(f"{loaded.config.name}: the config is valid.")


def print_check_as_json(read: Callable[[], LoadedConfig], with_config: bool = False) -> None:
    """The same as one JSON object on standard output; errors are on standard error as well.

    Args:
        with_config: the object has the config as a run reads it, too.

    Raises:
        UserError: with everything that would stop a run.
    """
    try:
        loaded = read()
        found = examine(loaded.config, loaded.where)
    except UserError as error:
        print_json("check", {"valid": False, "errors": str(error).splitlines(), "warnings": []})
        raise
    values = {"valid": not found.errors, "errors": found.errors, "warnings": found.warnings, "name": loaded.config.name}
    config = {"config": written_out(as_read(loaded.config))} if with_config else {}
    print_json("check", {**values, **config})
    found.require_none()


def as_read(config: RunConfig) -> RunConfig:
    """The config as a run reads it: references replaced by what they refer to, and the best-of-n baseline added.

    `seeds` stays instead of a student for each of them, and a student's own start stays with it alone, so that the config can be
    run like the original.
    """
    found = resolved(config.model_copy(update={"seeds": ()}))
    models = {name: model for name, model in found.models.items() if name not in config.own_starts}
    return found.model_copy(update={"seeds": config.seeds, "models": models})


def _line(problem: Problem, where: Callable[[KeyPath], Where] | None) -> str:
    return problem.line(where(problem.path) if where is not None else None)
