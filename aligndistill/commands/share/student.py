"""`aligndistill export RUN:STUDENT DIR`: a student as a folder that other tools load, with its card."""

from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from aligndistill.commands.share.facts import held_out_prompt, model_facts
from aligndistill.commands.share.names import TrainedModel, trained_model
from aligndistill.commands.share.weights import Exported, completed, dtype_of, write_weights
from aligndistill.config.card import Card
from aligndistill.errors import ConfigError
from aligndistill.reporting.card_text import Terms
from aligndistill.reporting.model_card import ModelFacts, model_card

CARD = "README.md"


def export_student(name: str, folder: Path, merge: bool, dtype: str | None, given: Terms) -> tuple[Exported, ModelFacts]:
    """Write a student and its card.

    Args:
        name: `RUN:STUDENT`.
        folder: where to; it must not exist, or be empty.
        given: what the command line says of the licence and the languages; the config's `card` says the rest.

    Raises:
        DataError: there is no such student, or what was written computes something else.
        ConfigError: a dtype that cannot be exported, or nothing to merge.
    """
    dtype = dtype_of(dtype)
    student = trained_model(name)
    terms_of(student, given)  # refused before the work
    with completed(folder) as partial:
        exported = write_weights(student, partial, merge, dtype, held_out_prompt(student))
        facts = replace(model_facts(student, exported, terms_of(student, given)), repo=folder.name)
        (partial / CARD).write_text(model_card(facts), encoding="utf-8", errors="replace")
    return exported, facts


def terms_of(student: TrainedModel, given: Terms) -> Terms:
    """The licence and languages of the command line, and where it says nothing, of the config's `card`.

    Raises:
        ConfigError: no such licence.
    """
    return terms(student.config.card, given)


def terms(card: Card | None, given: Terms) -> Terms:
    """The same for any card.

    Raises:
        ConfigError: no such licence.
    """
    said = card or Card()
    licence = given if given.license is not None else said
    values = {name: getattr(licence, name) for name in ("license", "license_name", "license_link")}
    try:
        checked = Card(**values, language=given.language or said.language)
    except ValidationError as error:
        reasons = [one["msg"].removeprefix("Value error, ") for one in error.errors()]
        raise ConfigError(f"--license, --language: {'; '.join(reasons)}.") from None
    return Terms(checked.license, checked.license_name, checked.license_link, checked.language)
