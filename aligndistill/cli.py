"""The command line: arguments in, pipeline called, errors printed. No logic of its own, and no heavy import before it is needed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aligndistill.errors import DataError, UserError
from aligndistill.processes import signals
from aligndistill.processes.environment import set_environment_defaults
from aligndistill.processes.full_disk import means_full_disk

if TYPE_CHECKING:
    from aligndistill.config.run import RunConfig

app = typer.Typer(
    name="aligndistill",
    help="A teacher judges what a student writes; the student learns the teacher's preferences.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigArguments = Annotated[
    list[str],
    typer.Argument(metavar="CONFIG... [section.key=value...]", help="YAML files, composed left to right, then overrides."),
]


@app.command()
def run(
    config: ConfigArguments,
    until: Annotated[str | None, typer.Option(help="Stop after this stage, e.g. rankings.")] = None,
) -> None:
    """Run a config to its report. What is finished already is not done again."""
    with user_errors():
        loaded = _load(config)  # before the heavy imports: a misspelt key is told at once
        from aligndistill.commands.run import run_and_print

        run_and_print(loaded, until)


@app.command()
def check(config: ConfigArguments) -> None:
    """Validate a config without running anything."""
    with user_errors():
        loaded = _load(config)
        typer.echo(f"{loaded.name}: the config is valid.")


@app.command()
def plan(config: ConfigArguments) -> None:
    """Show which stages would run, and what they would ask of models: requests, tokens, price, time. Nothing is asked."""
    with user_errors():
        loaded = _load(config)
        from aligndistill.commands.plan.plan import plan as plan_config

        typer.echo(plan_config(loaded))


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="The stage, e.g. student-dpo.")],
    config: ConfigArguments,
) -> None:
    """Make one stage (and what it needs): what a launcher starts."""
    with user_errors():
        loaded = _load(config)
        from aligndistill.commands.run import make_stage

        make_stage(loaded, name)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs, e.g. runs/quickstart.")],
) -> None:
    """One table for several runs."""
    with user_errors():
        from aligndistill.commands.compare import print_comparison

        print_comparison(runs)


@app.command()
def doctor(
    config: Annotated[
        list[str] | None, typer.Argument(metavar="[CONFIG...]", help="Also look at this config's folders and judge.")
    ] = None,
) -> None:
    """Versions, devices, DeepSpeed, disk, and whether the judge can be reached."""
    with user_errors():
        from aligndistill.commands.doctor import examine

        sound = examine(_load(config) if config else None, typer.echo)
    if not sound:
        raise typer.Exit(1)


@app.command()
def eval_rm(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A run's folder, a reward model's, or any sequence classifier with one label.")
    ],
    dataset: Annotated[Path, typer.Option(help="A file with prompt, chosen, rejected and subset: RewardBench 1 or 2.")],
    output: Annotated[Path | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
    layout: Annotated[
        Literal["chat", "transcript", "plain"] | None,
        typer.Option(help="How the model reads conversations: as our own says, chat for others."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts at a time, each with all its answers.")] = 8,
) -> None:
    """How often a reward model puts the right answer first, by subset."""
    with user_errors():
        from aligndistill.commands.eval_rm import print_benchmark

        print_benchmark(model, dataset, output, layout, batch_size)


judge_app = typer.Typer(help="Look at a judge's verdicts, hand them on, or ask by batch file.", no_args_is_help=True)
app.add_typer(judge_app, name="judge")


@judge_app.command()
def audit(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or a file of judgments that others made.")],
    labels: Annotated[Path | None, typer.Option(help="What people say of the same answers: preferences or rankings.")] = None,
) -> None:
    """How far the judge can be trusted. Exit code 4 when a limit of audit.stop is exceeded."""
    with user_errors():
        from aligndistill.commands.audit import print_audit

        print_audit(run, labels)


@judge_app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    output: Annotated[Path, typer.Option(help="The JSONL file to write.")],
    form: Annotated[
        Literal["distilabel", "rankings", "rewardbench", "ultrafeedback"],
        typer.Option("--format", help="distilabel, rankings (to label by hand), rewardbench (pairs), or ultrafeedback."),
    ] = "distilabel",
) -> None:
    """Write a run's rankings, with the judge's replies, for other tools."""
    with user_errors():
        from aligndistill.commands.export import export_run

        typer.echo(f"{export_run(run, output, form)} rows written to {output}")


@judge_app.command()
def export_batch(
    config: ConfigArguments,
    output: Annotated[Path, typer.Option(help="The JSONL file to write.")],
    logprobs: Annotated[bool, typer.Option(help="Ask for log-probabilities too, for soft verdicts.")] = True,
) -> None:
    """Write the judge's open questions as a batch file in the OpenAI form."""
    with user_errors():
        loaded = _load(config)
        from aligndistill.commands.batch_files import export_batch as export_questions

        typer.echo(f"{export_questions(loaded, output, logprobs)} requests written to {output}")


@judge_app.command()
def import_batch(
    config: ConfigArguments,
    results: Annotated[list[Path], typer.Option(help="A file of the batch's results; may be given several times.")],
) -> None:
    """Take a batch's results as the judge's answers. What is missing is asked again by `run` or the next export."""
    with user_errors():
        loaded = _load(config)
        from aligndistill.commands.batch_files import import_batch as import_results

        typer.echo(import_results(loaded, results).summary)


def main() -> None:
    """The entry point of `aligndistill` and of `python -m aligndistill`."""
    set_environment_defaults()
    # DeepSpeed's launcher puts this in front unless told not to; the environment says the same.
    sys.argv[1:] = [argument for argument in sys.argv[1:] if not argument.startswith("--local_rank=")]
    app()


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn what a user can mend into one message and an exit code; our own mistakes keep their traceback."""
    signals.listen()
    try:
        yield
    except UserError as error:
        _fail(str(error), error.exit_code)
    except Exception as error:
        if not means_full_disk(error):
            raise
        where = getattr(error, "filename", None) or "while writing"
        _fail(
            f"the disk is full ({where}). Make room and give the same command again: what was finished is kept.",
            DataError.exit_code,
        )
    except KeyboardInterrupt as stop:
        by = str(stop) or "SIGINT"
        _fail(f"stopped by {by}. The same command goes on from where this one stopped.", signals.STOPPED_EXIT)


def _fail(message: str, code: int) -> None:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr, flush=True)
    raise typer.Exit(code)


def _load(arguments: list[str]) -> "RunConfig":
    """Split files from overrides and load them."""
    from aligndistill.config.load import load_config

    files = [Path(argument) for argument in arguments if "=" not in argument or Path(argument).exists()]
    overrides = [argument for argument in arguments if "=" in argument and not Path(argument).exists()]
    return load_config(files, overrides)
