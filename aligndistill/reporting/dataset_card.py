"""The card of exported data: README.md with the front matter that the Hugging Face Hub reads."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from aligndistill.reporting.provenance import UNKNOWN, Origins, Provenance

MARK = "<!-- written by aligndistill; without this line the file is left as it is -->"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))
TERMS = (
    "The outputs of a model fall under its licence or terms of use. What is `unknown` here has to be found out before this is used."
)


def dataset_card(provenance: Provenance, file: str, form: str, rows: int, example: str) -> str:
    """The card of one exported file.

    Args:
        file: its name.
        form: the format that it was exported in.
        example: one of its rows, as JSON.
    """
    front = yaml.safe_dump(dict(_front_matter(provenance, file, form, rows)), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n{MARK}\n\n" + "\n".join(_body(provenance, file, form, rows, example)) + "\n"


def licence(origins: Origins) -> tuple[str, str | None]:
    """`license` and `license_name` of data that these models and sources made: one if all agree, `unknown` if any is unknown."""
    named = [one.licence for one in origins.models if one.model != "from scratch"] + [one.licence for one in origins.data]
    different = list(dict.fromkeys(named))
    if not different or UNKNOWN in different:
        return "unknown", None
    return (different[0], None) if len(different) == 1 else ("other", "several, see below")


def _front_matter(provenance: Provenance, file: str, form: str, rows: int) -> Iterator[tuple[str, Any]]:
    name, several = licence(provenance.origins)
    yield "license", name
    if several:
        yield "license_name", several
    yield "pretty_name", f"{provenance.run} ({form})"
    yield "size_categories", [next((size for limit, size in SIZES if rows < limit), "n>10M")]
    yield "task_categories", ["text-generation"]
    yield "annotations_creators", ["machine-generated"]
    yield "language_creators", ["machine-generated"]
    yield "tags", ["aligndistill", "synthetic", "rlaif", *(["distilabel"] if form.startswith("distilabel") else [])]
    hub = [one.data for one in provenance.origins.data if one.revision is not None]
    if hub:
        yield "source_datasets", hub
    yield "configs", [{"config_name": "default", "data_files": [{"split": "train", "path": file}]}]


def _body(provenance: Provenance, file: str, form: str, rows: int, example: str) -> Iterator[str]:
    yield f"# {provenance.run}\n"
    yield f"`{file}`: {rows:,} rows in the format `{form}`, from the run `{provenance.run}`. One of them:\n"
    yield f"```json\n{example}\n```\n"
    yield f"## Models and terms\n\n{TERMS}\n"
    yield "| name | model | server | revision | licence | outputs may train other models |\n| --- | --- | --- | --- | --- | --- |"
    for one in provenance.origins.models:
        cells = (one.name, one.model, one.server or "", one.revision or "", one.licence, one.outputs_may_train)
        yield _row(cells)
    yield "\n## Data\n\n| used as | data | revision or hash | licence |\n| --- | --- | --- | --- |"
    for source in provenance.origins.data:
        yield _row((source.key, source.data, source.revision or source.hash or "", source.licence))
    yield "\n## How it was made\n\n| stage | models | from | to | rows | dropped | tokens | USD |"
    yield "| --- | --- | --- | --- | --- | --- | --: | --: |"
    for stage in provenance.stages:
        made, dropped = _counts(stage.rows), _counts(stage.dropped)
        yield _row(
            (stage.stage, ", ".join(stage.models), stage.first, stage.last, made, dropped, f"{stage.tokens:,}", f"{stage.usd:.2f}")
        )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in counts.items() if number)


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
