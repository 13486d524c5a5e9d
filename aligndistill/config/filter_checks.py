"""Rules for filters: what they can be asked about, and by which models."""

from collections.abc import Iterator

from aligndistill.config.filters import Filters, Quality, Within
from aligndistill.config.judges import Judge
from aligndistill.config.models import EndpointModel, FunctionModel
from aligndistill.config.problems import Problem, did_you_mean
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import KeyPath


def sections(config: RunConfig) -> Iterator[tuple[KeyPath, Filters]]:
    """The filters of a run, by their keys."""
    for name, section in (("prompts", config.prompts), ("rankings", config.rankings), ("sft", config.sft)):
        if section is not None and section.filters is not None:
            yield (name, "filters"), section.filters


def judges(config: RunConfig) -> Iterator[tuple[KeyPath, Judge]]:
    """The judges of filters, by their keys."""
    for path, filters in sections(config):
        if filters.quality is not None:
            yield (*path, "quality", "judge"), filters.quality.judge


def filters(config: RunConfig) -> Iterator[Problem]:
    """Filters that cannot be applied."""
    for path, section in sections(config):
        if path[0] == "rankings" and config.rankings.source is None:
            text = "these are filters of 'rankings.source', which is not set: write them as prompts.filters"
            yield Problem(path, text)
        if path[0] == "sft" and config.sft is not None and config.sft.label is not None:
            yield Problem(
                path, "these are filters of a file, and a model writes the demonstrations: use 'label.keep', or remove them"
            )
        if section.quality is not None:
            yield from _quality(section.quality, (*path, "quality"))
        if section.ifd is not None and path[0] != "sft":
            yield Problem(
                (*path, "ifd"), "this is about how hard an answer is to predict, and only demonstrations are answers: remove it"
            )
        for key, within in (("ifd", section.ifd), ("perplexity", section.perplexity)):
            if within is not None:
                yield from _local(config, within, (*path, key))
        if section.balance is not None and section.balance.by != "language" and path[0] != "prompts":
            yield Problem((*path, "balance", "by"), "these rows are not grouped in this way: use 'language'")


def _quality(quality: Quality, path: KeyPath) -> Iterator[Problem]:
    judge = quality.judge
    if judge.compares:
        text = f"a {judge.kind} judge compares answers, and a filter needs a grade"
        yield Problem((*path, "judge", "kind"), f"{text}: use rubric, function, reward_model or likelihood")


def _local(config: RunConfig, within: Within, path: KeyPath) -> Iterator[Problem]:
    """The probabilities of whole texts are read from models that run here."""
    if not isinstance(within.model, str):
        model = within.model
    elif within.model in config.named_models:
        model = config.named_models[within.model]  # type: ignore[assignment]
    else:
        known = ", ".join(config.named_models) or "none"
        text = f"there is no model '{within.model}'{did_you_mean(within.model, config.named_models)} (models of this run: {known})"
        yield Problem((*path, "model"), text)
        return
    if isinstance(model, EndpointModel | FunctionModel):
        kind = "server" if isinstance(model, EndpointModel) else "function"
        yield Problem(
            (*path, "model"), f"this needs log-probabilities of whole texts, which a {kind} does not give: use a local model"
        )
    elif path[0] == "sft" and within.model == "start" and model.from_scratch is not None:
        text = "a start from scratch knows nothing before it is trained on these demonstrations: name another model"
        yield Problem((*path, "model"), text)
