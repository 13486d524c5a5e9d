"""Rules for the steps of `prompts.elicit`: models to ask, names, and templates for magpie."""

import re
from collections.abc import Iterator

from aligndistill.config.elicitation import Curate, Magpie, Step
from aligndistill.config.models import EndpointModel, FunctionModel, LocalModel
from aligndistill.config.problems import Problem, no_such_model
from aligndistill.config.rounds import FreshPrompts
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import KeyPath

_TAKEN = re.compile(r"(part|round)(-r\d+)?")
"""Names that would be those of other stages: `prompts-part` has a round's part of the prompts."""

_OF_ROUND = re.compile(r".*-r\d+")


def elicited(config: RunConfig) -> Iterator[Problem]:
    """Inconsistencies of the steps."""
    steps = config.prompts.elicit if config.prompts is not None else ()
    known = config.named_models
    names: set[str] = set()
    for number, step in enumerate(steps):
        path: KeyPath = ("prompts", "elicit", number)
        if step.name in names:
            yield Problem((*path, "name"), f"two steps are named '{step.name}': choose another name")
        elif _TAKEN.fullmatch(step.name):
            yield Problem((*path, "name"), f"'{step.name}' is a reserved name: choose another name")
        elif config.rounds is not None and _OF_ROUND.fullmatch(step.name):
            yield Problem((*path, "name"), "names that end in -r and a number are those of later rounds: choose another name")
        names.add(step.name)
        if step.weak_seeds is not None and (reason := _no_seeds(config, step, step.weak_seeds)):
            yield Problem((*path, "weak_seeds"), reason)
        for name in step.models:
            model = known.get(name)
            if model is None:
                yield Problem((*path, "model"), no_such_model(name, known))
            elif isinstance(step, Magpie) and (reason := _no_template(model)):
                yield Problem((*path, "model"), f"magpie gives '{name}' its chat template up to the user's turn, {reason}")


def _no_seeds(config: RunConfig, step: Step, count: int) -> str | None:
    """Why a step cannot begin with what the student was weak at; None if it can."""
    if config.rounds is None:
        text = "these are prompts that the student of the round before was weak at, and there are no rounds"
        return f"{text}: add 'rounds', or remove this key"
    if isinstance(step, Magpie):
        return "magpie shows a model no prompts: remove this key, or use evolve, expand or curate"
    if isinstance(step, Curate) and isinstance(step.topics, str):
        return "with a file of topics models see no prompts: remove this key, or set topics to {generate: 20}"
    sized = config.rounds.prompts
    if isinstance(sized, FreshPrompts) and count > sized.per_round:
        return f"a round has only {sized.per_round} prompts (rounds.prompts.per_round): lower this"
    return None


def _no_template(model: LocalModel | EndpointModel | FunctionModel) -> str | None:
    """Why the text before a user's turn is not known; None if it is, as far as the config says."""
    if isinstance(model, FunctionModel):
        return "and a function has none: use a model that runs here, or a server that continues text"
    if isinstance(model, EndpointModel):
        if model.tokenizer is not None:
            return None
        text = "and an endpoint of chats alone takes none: use a server that continues text (/v1/completions) and set 'tokenizer'"
        return f"{text} of the model to the folder or Hub name of its tokenizer, or use a model that runs here"
    return "and layout 'plain' has no turns: use chat or transcript" if model.layout == "plain" else None
