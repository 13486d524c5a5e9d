"""Rules for what models write to train the start on: labels, and revisions."""

from collections.abc import Iterator

from aligndistill.config.judges import Judge
from aligndistill.config.labels import Labels, Revise
from aligndistill.config.problems import Problem, no_such_model
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import KeyPath

LABEL: KeyPath = ("sft", "demonstrations", "label")


def judges(config: RunConfig) -> Iterator[tuple[KeyPath, Judge]]:
    """The judge that a label has for itself, with its path."""
    label = config.sft.label if config.sft is not None else None
    if label is not None and label.judge is not None:
        yield (*LABEL, "judge"), label.judge


def labels(config: RunConfig) -> Iterator[Problem]:
    """Demonstrations that a model writes: the model, and what decides on its answers."""
    label = config.sft.label if config.sft is not None else None
    if label is None or config.start is None:  # another check reports a missing start
        return
    yield from _known(config, label.model, (*LABEL, "model"))
    if label.revise is not None:
        yield from _known(config, label.revise.model, (*LABEL, "revise", "model"))
    if config.start.from_scratch is not None and "start" in _models(label):
        text = "a start from scratch has written nothing before `sft`, and labels are written before that"
        yield Problem((*LABEL, "model"), f"{text}: use another model, or a start that is a model already")
    if label.keep == "judge":
        yield from _judged(label, config.judge)


def _judged(label: Labels, of_run: Judge | None) -> Iterator[Problem]:
    judge = label.judge or of_run
    if judge is None:
        yield Problem((*LABEL, "keep"), "keep: judge needs a judge: add 'judge' beside this key, or the section 'judge' to the run")
    elif judge.compares and label.at_least is not None:
        text = f"a {judge.kind} judge compares answers and gives no grades: remove this key, or use a judge that grades"
        yield Problem((*LABEL, "at_least"), text)
    elif label.per_prompt < 2 and label.at_least is None and label.revise is None:
        yield Problem(
            (*LABEL, "per_prompt"), "of a single answer the judge has none to choose: set this to 2 or more, or 'at_least'"
        )


def revisions(config: RunConfig) -> Iterator[Problem]:
    """Revisions of candidates: the model that writes them."""
    revise = config.candidates.revise
    if revise is None:
        return
    path: KeyPath = ("candidates", "revise")
    yield from _known(config, revise.model, (*path, "model"))
    if config.judge is None:
        yield Problem(path, "without a 'judge' there are no candidates to revise: add that section, or remove this one")


def _known(config: RunConfig, model: object, path: KeyPath) -> Iterator[Problem]:
    if isinstance(model, str) and model not in config.named_models:
        yield Problem(path, no_such_model(model, config.named_models))


def _models(label: Labels) -> set[object]:
    revise: Revise | None = label.revise
    return {model for model in (label.model, revise and revise.model) if isinstance(model, str)}
