"""The stages in which models write prompts: those of `prompts.elicit`, in order, each on what the ones before it left."""

from aligndistill.config.run import RunConfig
from aligndistill.stages import elicitation
from aligndistill.store.stage import Given, Stage, pick, stage


def elicited_prompts(config: RunConfig, named: Given, prompts: Stage) -> Stage:
    """The prompts of the run's data, followed by those that each step adds."""
    assert config.prompts is not None
    of_server = {name: model.name for name, model in config.endpoints.items()}
    for step in config.prompts.elicit:
        prices = {
            name: config.budget.prices[of_server[name]] for name in step.models if of_server.get(name) in config.budget.prices
        }
        writing: Given = {
            "settings": step,
            "models": pick(named, step.models),
            "seed": config.seed,
            "not_hashed": {"prices": prices},
        }
        prompts = stage(f"prompts-{step.name}", elicitation.make, prompts=prompts, **writing)
    return prompts


def elicited_steps(prompts: Stage) -> Given:
    """The stages of the steps, by name, as an argument of the report; no argument if there are none."""
    steps = {one.name: one for one in (*prompts.upstream, prompts) if one.kind == "elicitation.make"}
    return {"elicited": steps} if steps else {}
