"""The stages in which models write prompts: once before the first round, and before each later one from what was hard."""

from collections.abc import Sequence

from aligndistill.config.elicitation import Step
from aligndistill.config.rounds import Round
from aligndistill.config.run import RunConfig
from aligndistill.graph.filters import filtered_new_prompts
from aligndistill.graph.round_stages import RoundStages
from aligndistill.stages import elicitation
from aligndistill.store.stage import Given, Stage, pick, stage


def elicited_prompts(config: RunConfig, named: Given, prompts: Stage) -> Stage:
    """The prompts of the run's data, followed by those that each step without `weak_seeds` adds."""
    assert config.prompts is not None
    for step in config.prompts.first_steps:
        writing = _writing(config, named, step) | {"seed": config.seed}
        prompts = stage(f"prompts-{step.name}", elicitation.make, prompts=prompts, **writing)
    return prompts


def prompts_so_far(
    config: RunConfig, each: Round, given: Given, models: Given, roles: Given, built: Sequence[RoundStages]
) -> Stage:
    """The prompts of the run, followed by those that were written for a later round and the rounds before it.

    Nothing is asked before the student of the round before is trained, and it is known that this round follows.

    Args:
        given: has the run's prompts.
        models, roles: by name; of the roles, `start` is the round's own.
        built: the rounds before.
    """
    steps = config.prompts.round_steps if config.prompts is not None else ()
    before: Stage = built[-1].prompts if built else given["prompts"]
    if not steps or not built:
        return before
    weak: Given = {"prompts": given["prompts"], "rankings": built[-1].data["rankings"]}
    asking: Given = {"round": each.name, "weak": weak, "seed": config.seed + int(each.name) - 1}
    prompts = before
    for step in steps:
        asking |= _writing(config, roles, step) | {"waits_for": built[-1].stop or built[-1].progress}
        prompts = stage(each.of(f"prompts-{step.name}"), elicitation.make, prompts=prompts, **asking)
    return filtered_new_prompts(config, each.of("filters"), models, prompts, before)


def elicited_steps(prompts: Stage) -> Given:
    """The stages of the steps, by name, as an argument of the report; no argument if there are none."""
    steps = {one.name: one for one in (*prompts.upstream, prompts) if one.kind == "elicitation.make"}
    return {"elicited": steps} if steps else {}


def _writing(config: RunConfig, models: Given, step: Step) -> Given:
    """Who writes what in a step."""
    prices = config.prices_of(step.models)
    return {"settings": step, "models": pick(models, step.models), "version": 2, "not_hashed": {"prices": prices}}
