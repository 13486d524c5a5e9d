"""`aligndistill push RUN:STUDENT REPO`: a student, or a run's data, to the Hugging Face Hub, after showing what would go there."""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import typer

from aligndistill.commands.share.data import export_data
from aligndistill.commands.share.facts import require_base_on_hub
from aligndistill.commands.share.hub import Repository, RepoType, repository, require_name, upload
from aligndistill.commands.share.names import trained_model
from aligndistill.commands.share.rows import Data
from aligndistill.commands.share.secret_scan import secrets_in
from aligndistill.commands.share.student import CARD, export_student, terms, terms_of
from aligndistill.config.load import load_config
from aligndistill.errors import ConfigError, DataError
from aligndistill.reporting.card_text import Terms, with_our_part
from aligndistill.reporting.model_card import model_card
from aligndistill.reporting.writing import size_text
from aligndistill.store.run_folder import split_name

NO_LICENCE = (
    "nothing is pushed without a licence: write 'card: {license: ...}' in the config and run it again, or give --license, "
    "such as apache-2.0. For another licence: --license other --license-name NAME --license-link URL."
)


@dataclass(frozen=True)
class Push:
    """What is pushed where.

    Attributes:
        name: `RUN:STUDENT`, or `RUN` with `kinds`.
        kinds: of data; empty for a student.
        form: the format of the data.
        given: what the command line says of the licence and the languages.
        public: whether everybody may see it.
        yes: whether not to ask.
    """

    name: str
    repo: str
    merge: bool
    dtype: str | None
    kinds: Sequence[Data]
    form: str | None
    given: Terms
    public: bool
    yes: bool

    @property
    def kind(self) -> RepoType:
        """The kind of repository."""
        return "dataset" if self.kinds else "model"


def push(wanted: Push) -> None:
    """Export into a temporary folder, show it, ask, and commit it.

    Raises:
        ConfigError: no licence, no repository's name, or no way to ask.
        DataError: there is nothing to push, it contains secrets, or the Hub refuses.
    """
    require_name(wanted.repo)
    licensed = _terms(wanted)
    if licensed.license is None:
        raise ConfigError(NO_LICENCE)
    if not wanted.yes and not can_ask():
        raise ConfigError("push cannot ask without a terminal: give --yes to push without asking.")
    with tempfile.TemporaryDirectory(prefix="aligndistill-push-") as temporary:
        there = repository(wanted.repo, wanted.kind, Path(temporary, "cache"))
        if there.private is False and not wanted.public:
            raise ConfigError(f"{wanted.repo} exists and is public: give --public, or another repository.")
        folder = Path(temporary, "files")
        notes = _export(wanted, folder)
        if there.readme is not None:
            ours = (folder / CARD).read_text(encoding="utf-8")
            (folder / CARD).write_text(with_our_part(there.readme, ours), encoding="utf-8")
        _refuse_secrets(folder)
        for line in _shown(folder, wanted, there, licensed, notes):
            typer.echo(line)
        if not wanted.yes and not typer.confirm(f"Push this to {wanted.repo}?"):
            raise DataError("nothing was pushed.")
        private = there.private if there.private is not None else not wanted.public
        typer.echo(upload(folder, wanted.repo, wanted.kind, private, f"Upload {wanted.name} with aligndistill"))


def can_ask() -> bool:
    """Whether a person can answer here."""
    return sys.stdin.isatty()


def _terms(wanted: Push) -> Terms:
    if wanted.kinds:
        return terms(load_config(Path(wanted.name) / "config.yaml").card, wanted.given)
    return terms_of(trained_model(wanted.name), wanted.given)


def _export(wanted: Push, folder: Path) -> list[str]:
    """Write what is pushed; returns what its owner should know of it."""
    if wanted.kinds:
        run, student = split_name(wanted.name)
        if student is not None:
            raise ConfigError(f"{wanted.name}: --data is of a whole run: give {run}.")
        return list(export_data(run, folder, wanted.kinds, wanted.form, wanted.given).warnings)
    exported, facts = export_student(wanted.name, folder, wanted.merge, wanted.dtype, wanted.given)
    if exported.adapter:
        require_base_on_hub(trained_model(wanted.name), folder)
    (folder / CARD).write_text(model_card(replace(facts, repo=wanted.repo)), encoding="utf-8", errors="replace")
    return [*([facts.base.why_no_link] if facts.base.why_no_link else []), *facts.warnings]


def _refuse_secrets(folder: Path) -> None:
    found = secrets_in(folder)
    if found:
        places = "\n".join(f"  {one.file}, line {one.line}: {one.what}" for one in found[:20])
        more = f"\n  and {len(found) - 20} more" if len(found) > 20 else ""
        raise DataError(
            f"nothing was pushed, because this looks like secrets:\n{places}{more}\nRemove them from the run's data or config."
        )


def _shown(folder: Path, wanted: Push, there: Repository, licensed: Terms, notes: Sequence[str]) -> Iterator[str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    sizes = [file.stat().st_size for file in files]
    for file, size in zip(files, sizes, strict=True):
        yield f"  {file.relative_to(folder).as_posix():40} {size_text(size):>10}"
    private = there.private if there.private is not None else not wanted.public
    seen = "private" if private else "public: everybody can see it"
    exists = "exists" if there.private is not None else "new"
    yield f"{len(files)} files, {size_text(sum(sizes))} -> {wanted.kind} {wanted.repo} ({exists}, {seen})"
    yield f"licence: {licensed.shown}"
    if there.readme is not None:
        yield "README.md: its text outside our part stays as it is"
    yield from (f"note: {note}" for note in notes)
