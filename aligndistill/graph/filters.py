"""The stages that decide which rows of a run's data are kept."""

from aligndistill.config.run import RunConfig
from aligndistill.stages import filters, models
from aligndistill.store.stage import Given, Stage, pick, stage


def filtered_prompts(config: RunConfig, named: Given, prompts: Stage) -> Given:
    """The prompts that the run uses. With filters, also those before (`all_prompts`), for the report."""
    wanted = config.prompts.filters if config.prompts is not None else None
    if wanted is None:
        return {"prompts": prompts}
    asked: Given = {"settings": wanted, "models": pick(named, wanted.models), "seed": config.seed}
    return {"all_prompts": prompts, "prompts": stage("filters", filters.prompts, version=2, **asked, prompts=prompts)}


def filtered_new_prompts(config: RunConfig, name: str, named: Given, prompts: Stage, known: Stage) -> Stage:
    """The prompts of a later round: the `known` ones, and those of the others that the filters of the run's prompts keep."""
    wanted = config.prompts.filters if config.prompts is not None else None
    if wanted is None:
        return prompts
    asked: Given = {"settings": wanted, "models": pick(named, wanted.models), "seed": config.seed}
    return stage(name, filters.prompts, version=2, **asked, prompts=prompts, known=known)


def filtered_demonstrations(config: RunConfig, named: Given) -> Given:
    """The demonstrations of the start that are kept, as an argument of the stage that trains on them; none without filters.

    `start` is here the start before that.
    """
    sft, start = config.sft, config.start
    wanted = sft.filters if sft is not None else None
    if sft is None or wanted is None or start is None or sft.label is not None:
        return {}
    known = named | ({"start": stage("start-before-sft", models.point, settings=start)} if "start" in wanted.models else {})
    asked: Given = {"settings": wanted, "models": pick(known, wanted.models), "seed": config.seed, "held_out": config.held_out}
    evaluated = config.prompts.source if config.prompts is not None else config.rankings.source
    made = stage("demonstrations", filters.demonstrations, version=2, **asked, source=sft.demonstrations, evaluated=evaluated)
    return {"demonstrations": made}


def filtered_rankings(config: RunConfig, named: Given) -> Given:
    """What the stage that reads ready-made rankings needs besides its settings, if they are filtered."""
    wanted = config.rankings.filters
    return {} if wanted is None else {"models": pick(named, wanted.models), "seed": config.seed, "version": 2}
