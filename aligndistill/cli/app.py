"""The command line: parses arguments, calls the commands and prints errors. Heavy imports are delayed until they are needed."""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

import aligndistill
from aligndistill.cli import judge as judging
from aligndistill.cli import share as sharing
from aligndistill.cli.arguments import (
    AsJson,
    ConfigArguments,
    LogFormat,
    Quiet,
    Verbose,
    complete_models,
    complete_runs,
    complete_stages,
    load,
    read,
    set_progress,
)
from aligndistill.cli.completion import ASKED, WRITES, completion, extend_bash, keep_texts
from aligndistill.cli.plain_help import PlainCommand, PlainGroup
from aligndistill.cli.user_errors import user_errors
from aligndistill.errors import ConfigError
from aligndistill.processes.environment import hide_library_warnings, set_environment_defaults

app = typer.Typer(name="aligndistill", cls=PlainGroup, no_args_is_help=True, pretty_exceptions_enable=False)

START, RUN, LOOK, SHARE = "Start", "Run", "Look", "Share"
"""The panels of the commands in the help."""


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"aligndistill {aligndistill.__version__}, Python {sys.version.split()[0]}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version")] = False,
) -> None:
    """Align a student model with a teacher model's judgments: sample, judge, train, evaluate

    Examples:

    aligndistill init first --quickstart

    aligndistill run quickstart.yaml seed=1 students.dpo.objective.beta=0.05

    aligndistill view runs/quickstart
    """


@app.command(cls=PlainCommand, rich_help_panel=START)
def init(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", show_default=False, help="Where to write; default: the working directory")
    ] = Path(),
    quickstart: Annotated[bool, typer.Option("--quickstart", help="Write the quickstart and its data; it runs offline")] = False,
    template: Annotated[str | None, typer.Option(metavar="NAME", help="Copy a shipped config, e.g. one-gpu or zephyr-dpo")] = None,
    prompts: Annotated[str | None, typer.Option(metavar="FILE", help="A file of prompts")] = None,
    preferences: Annotated[
        str | None, typer.Option(metavar="FILE", help="A file of ready-made preferences, instead of prompts")
    ] = None,
    toy: Annotated[bool, typer.Option("--toy", help="Write twenty prompts to start with")] = False,
    student: Annotated[str | None, typer.Option(metavar="MODEL", help="A Hub name or a folder")] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A server's URL that ends in /v1, a Hub name, or a folder")
    ] = None,
    teacher_name: Annotated[str | None, typer.Option(metavar="NAME", help="The model's name on that server")] = None,
    judge: Annotated[str | None, typer.Option(metavar="KIND", help="pairwise, rubric, likelihood or none")] = None,
    objectives: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Objectives to train, with commas, e.g. dpo,simpo")
    ] = None,
    gpus: Annotated[int | None, typer.Option(min=0, metavar="N", help="GPUs to train on; default: those of this machine")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Use the defaults without asking")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing config")] = False,
) -> None:
    """Write a config to start from, and check it; asks for what the options leave open."""
    with user_errors():
        from aligndistill.commands.init.choices import Given
        from aligndistill.commands.init.init import QUICKSTART, Target, initialise

        given = Given(prompts, preferences, student, teacher, teacher_name, judge, objectives, gpus)
        initialise(Target(folder, force), QUICKSTART if quickstart else template, toy, given, False if yes else None)


@app.command(cls=PlainCommand, rich_help_panel=RUN)
def run(
    config: ConfigArguments,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE",
            help="Stop after this stage, e.g. rankings; students and answers stand for all stages of that kind",
            autocompletion=complete_stages,
        ),
    ] = None,
    chain: Annotated[bool, typer.Option("--chain", help="Run each file as a separate config, in this order")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_format: LogFormat = "text",
    as_json: AsJson = False,
) -> None:
    """Run all stages of a config and write the report; finished stages are skipped."""
    with user_errors(resumable=True):
        set_progress(quiet, verbose, log_format)
        if chain:
            if until is not None or as_json:
                raise ConfigError("--until and --json are for a single run: run one config of the chain without --chain.")
            from aligndistill.commands.chain import run_chain
            from aligndistill.config.arguments import files_and_overrides

            run_chain(*files_and_overrides(config))
            return
        loaded = load(config)  # before the heavy imports, so that a misspelt key is reported at once
        from aligndistill.commands.run import run_and_print

        run_and_print(loaded, until, as_json)


@app.command(cls=PlainCommand, rich_help_panel=START)
def check(
    config: ConfigArguments,
    show: Annotated[bool, typer.Option("--print", help="Print the config as a run reads it, with all defaults")] = False,
    as_json: AsJson = False,
) -> None:
    """Find every mistake in a config, and in the files and variables that it names; runs nothing."""
    with user_errors():
        if as_json:
            from aligndistill.commands.check.check import print_check_as_json

            print_check_as_json(lambda: read(config), show)
            return
        loaded = read(config)  # before the other imports, so that a misspelt key is reported at once
        from aligndistill.commands.check.check import print_check

        print_check(loaded, show)


@app.command(cls=PlainCommand, rich_help_panel=START)
def plan(config: ConfigArguments, verbose: Verbose = False, as_json: AsJson = False) -> None:
    """Show which stages would run, with their requests, tokens, price, time and memory; sends no requests."""
    with user_errors():
        loaded = read(config)
        from aligndistill.commands.plan.plan import print_plan

        print_plan(loaded, verbose, as_json)


@app.command(cls=PlainCommand, rich_help_panel=RUN)
def stage(
    name: Annotated[str, typer.Argument(metavar="STAGE", help="The stage, e.g. student-dpo", autocompletion=complete_stages)],
    config: ConfigArguments,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_format: LogFormat = "text",
) -> None:
    """Run one stage and the stages that it needs; launchers start this command."""
    with user_errors(resumable=True):
        set_progress(quiet, verbose, log_format)
        loaded = load(config)
        from aligndistill.commands.run import make_stage

        make_stage(loaded, name)


@app.command(cls=PlainCommand, rich_help_panel=LOOK)
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN RUN...", help="Folders of runs; the first is the base", autocompletion=complete_runs),
    ],
    sort: Annotated[
        str | None, typer.Option(metavar="MEASURE", help="Sort models by truth, win, kl, length or reward, largest gain first")
    ] = None,
    worse: Annotated[int, typer.Option(min=0, metavar="N", help="Also show the N prompts that lost most")] = 0,
    markdown: Annotated[bool, typer.Option("--md", help="Print Markdown")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare runs with the first one: settings, and the figures of each model, paired over shared prompts."""
    with user_errors():
        from aligndistill.commands.compare.compare import compare as compare_runs
        from aligndistill.commands.compare.output import show

        show(compare_runs(runs, sort, worse), "json" if as_json else "md" if markdown else "table")


@app.command(cls=PlainCommand, rich_help_panel=LOOK)
def chat(
    model: Annotated[
        str,
        typer.Argument(metavar="RUN[:STUDENT]", help="A run's model; default: the leading student", autocompletion=complete_models),
    ],
    against: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A second model that answers as well, e.g. start, or RUN:STUDENT")
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Print the answer to this prompt and exit; - reads the prompt from standard input"),
    ] = None,
    system: Annotated[str, typer.Option(metavar="TEXT", help="A system message before the conversation")] = "",
) -> None:
    """Chat with a trained model, with its run's layout, template, stop tokens and sampling."""
    with user_errors(listens=False):  # Ctrl-C ends an answer
        from aligndistill.commands.chat.chat import chat as talk

        talk(model, against, prompt, system)


@app.command(cls=PlainCommand, rich_help_panel=LOOK)
def view(
    run: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN...]", help="Folders of runs; default: all below --runs", autocompletion=complete_runs),
    ] = None,
    runs: Annotated[Path, typer.Option(metavar="DIR", help="The folder with the runs")] = Path("runs"),
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="The port on 127.0.0.1; 0 takes a free one")] = 0,
    voter: Annotated[
        str | None, typer.Option(metavar="NAME", help="The name that your votes are stored under; default: your user name")
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Refuse votes")] = False,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address without opening a browser")] = False,
    export: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the pages as files to this folder and exit")] = None,
) -> None:
    """Show runs in a browser: live progress, samples, verdicts, curves, comparison and blind votes."""
    with user_errors(listens=False):  # the server has its own way to stop
        from aligndistill.commands.view.view import view as view_runs

        view_runs(run or (), runs, port, voter, read_only, not no_browser, export)


@app.command(cls=PlainCommand, rich_help_panel=START)
def doctor(
    config: Annotated[
        list[str] | None, typer.Argument(metavar="[CONFIG...]", help="Also check this config's folders and judge")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check versions, GPUs and who uses them, DeepSpeed, disk space, and whether the judge can be reached."""
    with user_errors():
        loaded = load(config) if config else None
        from aligndistill.commands.doctor import examine

        passed = examine(loaded, typer.echo, as_json)
    if not passed:
        raise typer.Exit(1)


@app.command(cls=PlainCommand, rich_help_panel=LOOK)
def eval_rm(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="The folder of a run or of a reward model, or any sequence classifier with one label"),
    ],
    dataset: Annotated[
        Path, typer.Option(metavar="FILE", help="A file with prompt, chosen, rejected and subset: RewardBench 1 or 2")
    ],
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the metrics to this JSON file")] = None,
    layout: Annotated[
        Literal["chat", "transcript", "plain"] | None,
        typer.Option(help="How the model reads conversations; default: as its model.json says, or chat"),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Prompts per batch, each with all its answers")] = 8,
    as_json: AsJson = False,
) -> None:
    """Measure how often a reward model scores the right answer highest, by subset."""
    with user_errors():
        from aligndistill.commands.eval_rm import print_benchmark

        print_benchmark(model, dataset, output, layout, batch_size, as_json)


def main() -> None:
    """The entry point of `aligndistill` and of `python -m aligndistill`."""
    set_environment_defaults()
    hide_library_warnings()
    # DeepSpeed's launcher adds this argument by default; the environment has the same value.
    sys.argv[1:] = [argument for argument in sys.argv[1:] if not argument.startswith("--local_rank=")]
    if ASKED in os.environ:
        keep_texts()
    if not WRITES.isdisjoint(sys.argv):
        extend_bash()
    app()


app.command(cls=PlainCommand, rich_help_panel=START)(completion)
for shares in (sharing.export, sharing.push):
    app.command(cls=PlainCommand, rich_help_panel=SHARE)(user_errors()(shares))


judge_app = typer.Typer(help="Audit a judge's verdicts, export them, or use a batch API", cls=PlainGroup, no_args_is_help=True)
app.add_typer(judge_app, name="judge", rich_help_panel=LOOK)
for about_judge in (judging.audit, judging.export, judging.export_batch, judging.import_batch):
    judge_app.command(cls=PlainCommand)(user_errors()(about_judge))
