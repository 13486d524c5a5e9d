"""Each model of a run by its name: a server, a function, or the stage that points to a model or fine-tunes it on demonstrations.

    prompts ──> labels ──> (hinted) ──> (revised) ──> (judged) ──> demonstrations ──> start

The demonstrations of the start may be answers that a model writes to the training prompts: one of the others, or the start as it is
before them.
"""

from aligndistill.config.audit import AuditProbes
from aligndistill.config.labels import Labels
from aligndistill.config.models import LocalModel
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import models_of
from aligndistill.config.training import Training
from aligndistill.graph.filters import filtered_demonstrations
from aligndistill.stages import demonstrations, labels, models, revisions, verdicts
from aligndistill.store.stage import Given, Stage, pick, stage


def named_models(config: RunConfig) -> Given:
    """Each model of the config: a server or function as it is, or the stage that writes its `model.json` or fine-tunes it.

    A start whose demonstrations are written in the run is here as it is before them: `with_labelled_start` replaces it.
    """
    found: Given = {**config.endpoints, **config.functions}
    for name, local in sorted(config.local_models.items(), key=lambda one: one[0] == "start"):  # its filters ask the others
        label = name if name in ("start", "teacher") else f"model-{name}"
        sft: Training | None = getattr(local, "sft", None)
        written: Given = {}
        if name == "start" and config.sft is not None:
            label, sft = ("start-before-sft", None) if config.sft.label else ("start", config.sft)
            written = filtered_demonstrations(config, found) if sft else {}
        found[name] = tuned(config, label, local, sft, **written) if sft else stage(label, models.point, settings=local)
    return found


def tuned(config: RunConfig, name: str, local: LocalModel, sft: Training, **written: Stage) -> Stage:
    """A model that is fine-tuned on demonstrations: those of a file, or what a stage has written."""
    learning: Given = {"sft": sft, "held_out": config.held_out, "seed": config.seed, **written}
    return stage(name, models.fine_tune, settings=local, **learning)


def with_labelled_start(config: RunConfig, named: Given, data: Given) -> tuple[Given, Given]:
    """The models and the run's data, where the start is fine-tuned on what a model writes; both unchanged if it is not."""
    sft = config.sft
    if sft is None or sft.label is None or config.start is None:
        return named, data
    written = labelled(config, sft.label, named, data["prompts"])
    start = tuned(config, "start", config.start, sft, demonstrations=written)
    return named | {"start": start}, data | {"demonstrations": written}


def labelled(config: RunConfig, label: Labels, named: Given, prompts: Stage) -> Stage:
    """A model's answers to the training prompts, as demonstrations. Each decision is a stage: another one asks nothing again."""
    asking: Given = {"settings": label.request, "authors": pick(named, models_of(label.request)), "held_out": config.held_out}
    asking["not_hashed"] = {"prices": config.prices_of(models_of(label.request))}
    known: Given = {"prompts": prompts, "seed": config.seed}
    found = stage("labels", labels.make, **asking, **known)
    if label.hint_on_failure:
        hints: Given = {"selection": label.selection, "references": label.references, "labels": found}
        found = stage("labels-hinted", labels.hinted, **asking, **known, **hints)
    if label.revise is not None:
        revising: Given = {"settings": label.revise, "replaces": label.revisions_replace, "rationale": label.rationale}
        revising["not_hashed"] = {"prices": config.prices_of(models_of(label.revise))}
        revising |= {"authors": pick(named, models_of(label.revise)), "version": 2 if label.revisions_replace else 1}
        found = stage("labels-revised", revisions.make, candidates=found, **revising, **known)
    judged: Given = {}
    if label.judge is not None:
        judging: Given = {"judge": label.judge, "models": pick(named, models_of(label.judge))}
        judging |= {"probes": AuditProbes(canaries=0, repeats=0), "least": 2 if label.judge.compares else 1}
        judged = {"verdicts": stage("labels-judged", verdicts.make, **judging, candidates=found, **known)}
    deciding: Given = {"settings": label.request, "selection": label.selection, "labels": found, "prompts": prompts}
    return stage("demonstrations", demonstrations.make, version=2, **deciding, **judged)
