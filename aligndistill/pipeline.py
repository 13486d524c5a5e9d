"""The stages of a run, and which reads the results of which.

    prompts ──> candidates ──> verdicts ──> rankings ──┬──> reward_model ──┬─────────────┐
       │  (start, teacher,    (the judge)   (or ready  │                   v  (as reward)│
       │   other models)       └─> audit     made)     └─────────────> students ─────────┤──> next round's start
       └── held-out prompts ──> answers of start, teacher, students ──> evaluation ──> report

Its parts are in `graph/`: the models, with the fine-tuning of the start (`models.py`); prompts, candidates, verdicts and rankings
(`training_data.py`); answers to held-out prompts and what is measured on them (`measurements.py`).

A stage is a deferred call: a function of `stages/` and its keyword arguments. Arguments that are stages or servers are its inputs,
the others its settings; the fingerprint hashes both by keyword (`store/stage.py`). Building a pipeline runs nothing.
"""

from collections.abc import Sequence

from aligndistill.config.resolve import resolved
from aligndistill.config.rounds import Round
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import models_of
from aligndistill.config.students import Student
from aligndistill.config.yaml import dump_yaml
from aligndistill.graph.elicited import prompts_so_far
from aligndistill.graph.measurements import held_out_answers, judge_kinds, measurements, progress
from aligndistill.graph.models import named_models, with_labelled_start
from aligndistill.graph.round_stages import RoundStages
from aligndistill.graph.training_data import learned_rankings, preferences, prompt_set, ready
from aligndistill.stages import report, rounds, students, teacher_tokens
from aligndistill.stages.chains import chain_models, require_one_tokenizer, with_models_of_runs
from aligndistill.stages.provenance import origins
from aligndistill.store.stage import Given, Pipeline, Stage, pick, stage


def pipeline(config: RunConfig) -> Pipeline:
    """All stages that the report needs."""
    shown = dump_yaml(config.model_dump(mode="json", by_alias=True, exclude={"budget", "card", "runtime"}))
    config = with_models_of_runs(resolved(config))
    require_one_tokenizer(config)
    models = named_models(config)
    models, data = with_labelled_start(config, models, prompt_set(config, models))
    built: list[RoundStages] = []
    for each in config.all_rounds:
        built.append(one_round(config, each, models, data, built))
    about: Given = {"run": config.name, "seed": config.seed, "shown": shown}
    about |= {**judge_kinds(config), "origins": origins(config).model_dump()}
    about["chain"] = chain_models(config)
    return Pipeline(stage("report", report.make, version=3, **about, **measurements(config, models, data, built)))


def one_round(config: RunConfig, each: Round, models: Given, data: Given, before: Sequence[RoundStages]) -> RoundStages:
    """From candidates to students, their answers to held-out prompts, and what decides whether another round follows.

    `models` and `data` are those of the run. The student promoted by the last of the rounds `before` is the start of this one.
    """
    previous = before[-1] if before else None
    models = models | ({"student": previous.progress} if previous else {})
    roles = models | {role: models[name] for role, name in each.roles.items()}  # start and reference
    written = prompts_so_far(config, each, data, models, roles, before)
    learned = preferences(config, each, data, written, models, roles, before)
    compared = {each.of(role): held_out_answers(config, each.of(role), data, author=roles[role]) for role in each.compared}
    start_answers = previous.promoted_answers if previous else compared.get("start")
    known = learned | {"start_answers": start_answers, "rankings": learned_rankings(learned)}
    settings = {each.of(name): config.students[name] for name in each.students}
    trained = {name: student(config, name, one, roles, known, compared) for name, one in settings.items()}
    answers: Given = {}
    for name, author in trained.items():
        start = models.get(config.own_start(name), models["start"])
        answers[name] = held_out_answers(config, name, data, author=author, reference=start)
    answers |= compared
    if each.promotes is None:
        return RoundStages(each.name, written, learned, settings, trained, answers)
    promoted = each.of(each.promotes)
    of_start = {"start": before[0].answers["start"] if before else answers["start"], "previous": start_answers}
    reached = progress(config, each, trained[promoted], learned, models, of_start | {"student": answers[promoted]})
    stop = stage(each.of("stop"), rounds.stop, settings=each.stop, progress=reached) if each.stop else None
    return RoundStages(each.name, written, learned, settings, trained, answers, promoted, reached, stop)


def student(config: RunConfig, name: str, settings: Student, roles: Given, data: Given, compared: Given) -> Stage:
    """The round's start, or the student's own, trained by one objective, which declares its inputs: `reads = ("rankings",)`.

    `compared` has the answers of starts to the held-out prompts.
    """
    objective, start = settings.objective, settings.start or config.start
    shares_backbone = config.reward_model is not None and config.reward_model.model is None and settings.start is None
    if settings.start is not None:
        own = config.own_start(name)
        roles, data = roles | {"start": roles[own], "reference": roles[own]}, data | {"start_answers": compared[own]}
    if "reward_model" in data:  # with `seeds`, each seed has its own
        data = data | {"reward_model": data.get(f"reward_model-s{settings.seed}", data["reward_model"])}
    known = roles | data | {"critic": data["reward_model"] if shares_backbone else roles["start"]}
    inputs, judges = pick(known, ("start", *objective.reads)), models_of(objective)
    if "start_answers" in objective.reads:  # compared with the start during training
        inputs |= {"evaluation": config.evaluation, "sampling": config.answer_sampling}
        judges = models_of(objective, config.evaluation)
    if settings.teacher_tokens is not None:  # what is read is stored once, and the teacher is not loaded again
        reading = pick(known, ("start", "teacher", "rankings")) | {"settings": settings.teacher_tokens}
        inputs["teacher_tokens"] = stage(f"teacher_tokens-{name}", teacher_tokens.make, **reading, waits_for=ready(data))
        del inputs["teacher"]
    learning: Given = {"settings": settings, "lora": start.lora if start else None}
    learning["seed"] = config.seed if settings.seed is None else settings.seed
    models_of_judges = pick(roles, judges)  # a model of the user's may have the name of one of our stages
    learning["version"] = 2 if objective.trainer == "trl" else 1
    return stage(f"student-{name}", students.make, **learning, **inputs, models=models_of_judges, waits_for=ready(data))
