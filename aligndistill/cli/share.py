"""The commands that hand a run's results on: `export` and `push`. `app.py` registers them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from aligndistill.reporting.card_text import Terms

DataKinds = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="KIND",
        help="Data of the run instead of a student: preferences, rankings, verdicts, votes, answers or prompts; "
        "may be given several times",
    ),
]
DataFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="Preferences: trl, openrlhf, rewardbench; rankings: rankings, distilabel, ultrafeedback; "
        "answers: messages, easydistill, distilabel-sft; votes: votes, trl; default: the first one",
    ),
]
Merge = Annotated[bool, typer.Option("--merge", help="Merge a student's adapters into its model")]
Dtype = Annotated[str | None, typer.Option(metavar="DTYPE", help="bf16, fp16 or fp32; default: as trained")]
License = Annotated[
    str | None, typer.Option("--license", metavar="ID", help="The licence, e.g. apache-2.0; default: card.license of the config")
]
LicenseName = Annotated[str | None, typer.Option("--license-name", metavar="NAME", help="The licence's name, with --license other")]
LicenseLink = Annotated[
    str | None, typer.Option("--license-link", metavar="URL", help="The licence's address, with --license other")
]
Language = Annotated[
    list[str] | None, typer.Option("--language", metavar="CODE", help="A language code such as en; may be given several times")
]
Name = Annotated[str, typer.Argument(metavar="RUN[:STUDENT]", help="A student, e.g. runs/quickstart:dpo, or with --data a run")]


def export(
    name: Name,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write; it must be new or empty")],
    merge: Merge = False,
    dtype: Dtype = None,
    data: DataKinds = None,
    form: DataFormat = None,
    license: License = None,
    license_name: LicenseName = None,
    license_link: LicenseLink = None,
    language: Language = None,
) -> None:
    """Write a student as a folder that other tools can load, or a run's data in their formats, with a card."""
    given = _terms(license, license_name, license_link, language)
    if data:
        from aligndistill.commands.share.data import export_data
        from aligndistill.commands.share.rows import data_kinds

        _only_of_students(merge, dtype)
        facts = export_data(Path(name), folder, data_kinds(data), form, given)
        for part in facts.parts:
            typer.echo(f"{sum(part.rows.values()):,} rows in {', '.join(f'{folder}/{path}' for path in part.files.values())}")
        return
    from aligndistill.commands.share.student import export_student

    _only_of_data(form)
    exported, facts_of_model = export_student(name, folder, merge, dtype, given)
    what = f"adapters for {exported.base}" if exported.adapter else "model"
    typer.echo(f"{what}: {exported.parameters:,} parameters in {exported.dtype}, written to {folder}")
    typer.echo(f"loaded again: 20 logits agree within {100 * exported.difference:.2g} % of the largest")
    for note in facts_of_model.warnings:
        typer.echo(f"note: {note}")


def push(
    name: Name,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME on the Hugging Face Hub, or on HF_ENDPOINT")],
    merge: Merge = False,
    dtype: Dtype = None,
    data: DataKinds = None,
    form: DataFormat = None,
    license: License = None,
    license_name: LicenseName = None,
    license_link: LicenseLink = None,
    language: Language = None,
    public: Annotated[bool, typer.Option("--public", help="Make it public; default: private")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Push without asking")] = False,
) -> None:
    """Push a student, or a run's data, to the Hugging Face Hub, private by default; shows the files and asks first."""
    from aligndistill.commands.share.push import Push
    from aligndistill.commands.share.push import push as push_to_hub
    from aligndistill.commands.share.rows import data_kinds

    _only_of_students(merge, dtype) if data else _only_of_data(form)
    given = _terms(license, license_name, license_link, language)
    push_to_hub(Push(name, repo, merge, dtype, data_kinds(data or ()), form, given, public, yes))


def _terms(license: str | None, name: str | None, link: str | None, language: list[str] | None) -> "Terms":
    from aligndistill.reporting.card_text import Terms

    return Terms(license, name, link, tuple(language or ()))


def _only_of_students(merge: bool, dtype: str | None) -> None:
    if merge or dtype is not None:
        raise typer.BadParameter("--merge and --dtype are for a student: remove them, or remove --data.")


def _only_of_data(form: str | None) -> None:
    if form is not None:
        raise typer.BadParameter("--format is for data: add --data, such as --data preferences.")
