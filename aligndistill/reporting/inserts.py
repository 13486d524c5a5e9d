"""What the run's folder fills into the page of the report: how the run was made, and what people voted."""

from collections.abc import Iterator

from aligndistill.reporting.about import About
from aligndistill.reporting.report import Report
from aligndistill.reporting.templates import environment
from aligndistill.reporting.vote_rows import vote_rows, votes_sentence
from aligndistill.reporting.writing import duration, large

ABOUT, VOTES = "<!-- about -->", "<!-- votes -->"
"""Comments of the page that are replaced. Texts cannot hold them, for they are escaped."""


def with_inserts(page: str, report: Report, folder: str) -> str:
    """The page with what the report's `about` and `votes` say.

    Args:
        folder: the run's, as it is written on a command line.
    """
    templates = environment()
    if report.about is not None:
        values = {"about": report.about, "facts": list(_facts(report, report.about)), "folder": folder}
        page = page.replace(ABOUT, templates.get_template("about.html.j2").render(values))
    if report.votes is not None:
        values = {"votes": report.votes, "rows": list(vote_rows(report.votes)), "sentence": votes_sentence(report.votes)}
        page = page.replace(VOTES, templates.get_template("votes.html.j2").render(values))
    return page


def _facts(report: Report, about: About) -> Iterator[tuple[str, str]]:
    for model in about.models:
        size = f", {large(model.parameters)} parameters" if model.parameters else ""
        yield model.name, f"{model.model}{size}"
    for source in report.origins.data:
        version = source.revision or source.hash
        yield f"data: {source.key}", f"{source.data}{f' at {version[:8]}' if version else ''}"
    yield "finished (UTC)", about.finished[:16].replace("T", " ")
    yield "machine", about.machine
    yield "time of all stages", duration(about.seconds)
    if about.requests:
        cost = f", {about.usd:.2f} USD" if about.usd else ""
        yield "servers", f"{about.requests:,} requests, {about.tokens:,} tokens{cost}"
