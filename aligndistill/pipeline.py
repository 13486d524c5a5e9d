"""The stages of a run, and which reads the results of which.

    prompts ──> candidates ──> verdicts ──> rankings ──┬──> reward_model ──┬─────────────┐
       │  (start, teacher,    (the judge)   (or ready  │                   v  (as reward)│
       │   other models)       └─> audit     made)     └─────────────> students ─────────┤──> next round's start
       └── held-out prompts ──> answers of start, teacher, students ──> evaluation ──> report

A stage is a deferred call: a function of `stages/` and its keyword arguments. Arguments that are stages or servers are its inputs,
the others its settings; the fingerprint hashes both by keyword (`store/stage.py`). Building a pipeline runs nothing.
"""

from aligndistill.config.resolve import resolved
from aligndistill.config.rounds import Round
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import models_of
from aligndistill.config.students import Student
from aligndistill.config.yaml import dump_yaml
from aligndistill.measurements import followings, held_out_answers, progress, scored
from aligndistill.named_models import named_models, with_labelled_start
from aligndistill.stages import (  # fmt: skip
    audit,
    candidates,
    prompts,
    rankings,
    report,
    revisions,
    reward_model,
    rounds,
    students,
    teacher_tokens,
    verdicts,
)
from aligndistill.store.stage import Given, Pipeline, Stage, pick, stage


def pipeline(config: RunConfig) -> Pipeline:
    """All stages that the report needs."""
    shown = dump_yaml(config.model_dump(mode="json", by_alias=True, exclude={"budget", "runtime"}))
    config = resolved(config)
    named, given = named_models(config), prompt_set(config)
    named, given = with_labelled_start(config, named, given)
    data, of_round, promoted, trained, written, learned, reached, stops = (Given() for _ in range(8))
    previous: Stage | None = None  # the answers of the round's start
    for each in config.all_rounds:
        known = named | promoted  # plus `student`, promoted by the previous round
        roles = known | {role: known[name] for role, name in each.roles.items()}  # start and reference
        data = of_round[each.name] = preferences(config, each, given, roles, data, [*stops.values()])
        compared = {each.of(role): held_out_answers(config, each.of(role), given, author=roles[role]) for role in each.compared}
        known = data | {"start_answers": previous or compared.get("start"), "rankings": learned_rankings(data)}
        new = {each.of(name): student(config, each.of(name), config.students[name], roles, known) for name in each.students}
        for name, author in new.items():
            written[name] = held_out_answers(config, name, given, author=author, reference=named["start"])
        written |= compared
        trained |= new
        learned |= {each.of(name): config.students[name] for name in each.students}
        if each.promotes:
            name = each.of(each.promotes)
            compared = {"start": written["start"], "previous": known["start_answers"], "student": written[name]}
            made = reached[each.name] = progress(config, each, new[name], data, named, compared)
            promoted, previous = {"student": made}, written[name]
            if each.stop:
                stops[each.name] = stage(each.of("stop"), rounds.stop, settings=each.stop, progress=made)
    followed = followings(config, trained, written, given, named)
    rewards = of_round["1"].get("reward_model")
    scores = scored(config, named, given["prompts"], written, rewards, stops) if trained else None
    about: Given = {"run": config.name, "seed": config.seed, "shown": shown, "store": config.runtime.store.absolute()}
    about |= {"settings": learned, "judge": config.judge.kind if config.judge else None}
    results: Given = {"students": trained, "evaluation": scores, "fidelity": followed, "progress": reached, "stops": stops}
    return Pipeline(stage("report", report.make, **about, rounds=of_round, **results))


def prompt_set(config: RunConfig) -> Given:
    """The prompts, each in its split; with ready-made rankings, the rankings and their prompts."""
    if config.prompts is not None:
        return {"prompts": stage("prompts", prompts.read, settings=config.prompts)}
    ready = stage("rankings", rankings.read, **ranking(config))
    return {"rankings": ready, "prompts": stage("prompts", prompts.of_rankings, rankings=ready)}


def ranking(config: RunConfig) -> Given:
    """The settings of the stage `rankings`. `learns_ties` only decides whether a run without an order stops there."""
    return {"settings": config.rankings, "conversational": config.conversational, "not_hashed": {"learns_ties": config.learns_ties}}


def preferences(config: RunConfig, each: Round, given: Given, roles: Given, before: Given, stops: list[Stage]) -> Given:
    """The inputs that the students of a round may read, by name. Without a judge these are the prompts alone.

    `given` has the run's prompts or ready-made rankings, `before` the inputs of the round before, `stops` what decided on this one.
    """
    data = dict(given)
    if each.part is not None:
        part, parts = each.part
        data["prompts"] = stage(each.of("prompts-part"), prompts.part, prompts=given["prompts"], part=part, parts=parts)
    judged: Given = pick(data, ("rankings",)) if "rankings" in data else {}
    if config.judge is not None and config.prompts is not None:
        judged = pick(data, ("prompts",))
        writing: Given = {"settings": config.candidates, "authors": pick(roles, config.candidates.authors), "seed": config.seed}
        revise = config.candidates.revise
        name = each.of("candidates" if revise is None else "drafts")
        judged["candidates"] = stage(name, candidates.make, **writing, **judged, waits_for=stops[-1] if stops else None)
        if revise is not None:  # by another model; the revisions join what they revise, and are judged like it
            revising: Given = {"settings": revise, "replaces": False, "authors": pick(roles, models_of(revise))}
            judged["candidates"] = stage(each.of("candidates"), revisions.make, **revising, **judged, seed=config.seed)
        judging: Given = {"judge": config.judge, "models": pick(roles, models_of(config.judge)), "seed": config.seed}
        judged["verdicts"] = stage(each.of("verdicts"), verdicts.make, **judging, **judged, probes=config.audit.probes)
    if judged:  # later stages wait for the audit without depending on it: a new limit rebuilds none of them
        data = data | {"audit": stage(each.of("audit"), audit.make, settings=config.audit_settings, **judged)}
    if "verdicts" in judged:
        made = stage(each.of("rankings"), rankings.make, **ranking(config), **judged, waits_for=data["audit"])
        data |= judged | {"rankings": made}
    if each.joins and before:
        data["all_rankings"] = stage(each.of("all_rankings"), rounds.join, before=learned_rankings(before), latest=data["rankings"])
    if config.reward_model is not None:
        backbone = {} if config.reward_model.model else pick(roles, ("start",))
        learning = backbone | {"settings": config.reward_model, "seed": config.seed, "version": 2, "waits_for": data["audit"]}
        data = data | {
            "reward_model": stage(each.of("reward_model"), reward_model.make, rankings=learned_rankings(data), **learning)
        }
    return data


def learned_rankings(data: Given) -> Stage | None:
    """What a round learns from: its rankings, or those of all rounds so far."""
    return data.get("all_rankings", data.get("rankings"))


def student(config: RunConfig, name: str, settings: Student, roles: Given, data: Given) -> Stage:
    """The round's start, trained by one objective, which declares its inputs: `reads = ("rankings", "reference")`."""
    objective = settings.objective
    shares_backbone = config.reward_model is not None and config.reward_model.model is None
    known = roles | data | {"critic": data["reward_model"] if shares_backbone else roles["start"]}
    inputs, judges = pick(known, ("start", *objective.reads)), models_of(objective)
    if "start_answers" in objective.reads:  # compared with the start during training
        inputs |= {"evaluation": config.evaluation, "sampling": config.answer_sampling}
        judges = models_of(objective, config.evaluation)
    if settings.teacher_tokens is not None:  # what is read is stored once, and the teacher is not loaded again
        reading = pick(known, ("start", "teacher", "rankings")) | {"settings": settings.teacher_tokens}
        inputs["teacher_tokens"] = stage(f"teacher_tokens-{name}", teacher_tokens.make, **reading, waits_for=data.get("audit"))
        del inputs["teacher"]
    learning: Given = {"settings": settings, "lora": config.start.lora if config.start else None, "seed": config.seed}
    models_of_judges = pick(roles, judges)  # a model of the user's may have the name of one of our stages
    return stage(f"student-{name}", students.make, **learning, **inputs, models=models_of_judges, waits_for=data.get("audit"))
