"""Models whose licence is not known, though others learn from what they write or say."""

from collections.abc import Iterator

from aligndistill.config.models import EndpointModel, FunctionModel, LocalModel
from aligndistill.config.problems import Problem
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import KeyPath, model_uses
from aligndistill.stages.provenance import licence_of

ADVICE = "set it to the licence or terms (as in apache-2.0), and 'outputs_may_train' to yes or no, so that the report can say so"


def unlicensed(config: RunConfig) -> Iterator[Problem]:
    """Teachers and other models than the start without a licence, and teachers whose outputs must not train others."""
    for path, model in _teachers(config):
        if isinstance(model, LocalModel) and model.from_scratch is not None:
            continue
        if licence_of(model) is None:
            yield Problem((*path, "licence"), f"the licence of this model is not known: {ADVICE}")
        if model.outputs_may_train == "no":
            yield Problem((*path, "outputs_may_train"), "this run trains a model on what this one writes or says, and this says no")


def _teachers(config: RunConfig) -> Iterator[tuple[KeyPath, EndpointModel | FunctionModel | LocalModel]]:
    if config.teacher is not None:
        yield ("teacher",), config.teacher
    for name, model in config.models.items():
        yield ("models", name), model
    for use in model_uses(config):
        if isinstance(use.model, EndpointModel | FunctionModel | LocalModel):
            yield use.path, use.model
