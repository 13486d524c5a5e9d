"""Rules for a judge that goes by authors, and for a data set's answers among the candidates."""

from collections.abc import Iterator

from aligndistill.config.candidates import DEMONSTRATIONS
from aligndistill.config.judges import ByAuthor
from aligndistill.config.objectives import Rewarded
from aligndistill.config.problems import Problem, did_you_mean
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import sections_in


def authors(config: RunConfig) -> Iterator[Problem]:
    """Only the candidates have authors that such a judge can know."""
    if config.candidates.demonstrations is not None and DEMONSTRATIONS in config.models:
        text = "this is what the author of 'candidates.demonstrations' is called: give the model another name"
        yield Problem(("models", DEMONSTRATIONS), text)
    for path, section in sections_in(config):
        if isinstance(section, ByAuthor) and path != ("judge",):
            text = (
                "a judge of kind 'author' knows the authors of the run's candidates alone: use it as 'judge', and another kind here"
            )
            yield Problem((*path, "kind"), text)
    judge = config.judge
    if not isinstance(judge, ByAuthor):
        return
    known = (*config.candidates.authors, *([DEMONSTRATIONS] if config.candidates.demonstrations else []))
    if judge.best not in known:
        listed = ", ".join(known)
        text = f"no candidate is written by '{judge.best}'{did_you_mean(judge.best, known)} (authors: {listed})"
        advice = ": set candidates.demonstrations" if judge.best == DEMONSTRATIONS else ""
        yield Problem(("judge", "best"), text + advice)
    if config.evaluation.judge == "same":
        text = "the run's judge goes by authors and cannot compare students: give another judge here, or null"
        yield Problem(("evaluation", "judge"), text)
    for name, student in config.students.items():
        if isinstance(student.objective, Rewarded) and any(part.source == "judge" for part in student.objective.rewards):
            text = "the run's judge goes by authors and cannot grade what students write: give another reward"
            yield Problem(("students", name, "objective", "reward"), text)
