"""The commands of `aligndistill judge`. `app.py` registers them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from aligndistill.cli.arguments import AsJson, ConfigArguments, complete_runs, load


def audit(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder, or a file of recorded verdicts", autocompletion=complete_runs)
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Human labels of the same answers: a file of preferences or rankings; or votes, for the run's own votes",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how reliable the judge is; exits with code 4 when a limit of audit.stop is exceeded."""
    from aligndistill.commands.audit import print_audit

    print_audit(run, labels, as_json)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder", autocompletion=complete_runs)],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The JSONL file to write")],
    form: Annotated[
        Literal["distilabel", "rankings", "rewardbench", "ultrafeedback", "messages", "prompts", "easydistill", "distilabel-sft"],
        typer.Option(
            "--format",
            help="Rankings: distilabel, rankings (to label by hand), rewardbench (pairs), ultrafeedback; "
            "training prompts: prompts; answers to them: messages (TRL), easydistill, distilabel-sft",
        ),
    ] = "distilabel",
) -> None:
    """Export a run's rankings with the judge's replies, or its prompts and answers, for other tools, with a card."""
    from aligndistill.commands.export import export_run

    typer.echo(f"{export_run(run, output, form)} rows written to {output}")


def export_batch(
    config: ConfigArguments,
    output: Annotated[Path, typer.Option(metavar="FILE", help="The JSONL file to write")],
    logprobs: Annotated[bool, typer.Option(help="Also ask for log-probabilities, for soft verdicts")] = True,
) -> None:
    """Write the judge's unanswered questions as a batch file in the OpenAI format."""
    loaded = load(config)
    from aligndistill.commands.batch_files import export_batch as export_questions

    typer.echo(f"{export_questions(loaded, output, logprobs)} requests written to {output}")


def import_batch(
    config: ConfigArguments,
    results: Annotated[list[Path], typer.Option(metavar="FILE", help="A file of the batch's results; may be given several times")],
) -> None:
    """Import a batch's results as the judge's replies; `run` or the next export asks again for missing replies."""
    loaded = load(config)
    from aligndistill.commands.batch_files import import_batch as import_results

    typer.echo(import_results(loaded, results).summary)
