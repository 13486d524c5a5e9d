"""The stages of a run, and which reads the results of which.

    prompts ──> candidates ──> verdicts ──> rankings ──┬──> reward_model ──┬─────────────┐
       │  (start, teacher,    (the judge)   (or ready  │                   v  (as reward)│
       │   other models)       └─> audit     made)     └─────────────> students ─────────┤──> next round's start
       └── held-out prompts ──> answers of start, teacher, students ──> evaluation ──> report

Prompts are read, written by models and filtered, and a round's candidates judged, in `graph/training_data.py`; the start may be
fine-tuned on answers that a model writes (`graph/models.py`).

A stage is a deferred call: a function of `stages/` and its keyword arguments. Arguments that are stages or servers are its inputs,
the others its settings; the fingerprint hashes both by keyword (`store/stage.py`). Building a pipeline runs nothing.
"""

from aligndistill.config.resolve import resolved
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import models_of
from aligndistill.config.students import Student
from aligndistill.config.yaml import dump_yaml
from aligndistill.graph.measurements import followings, held_out_answers, progress, scored
from aligndistill.graph.models import named_models, with_labelled_start
from aligndistill.graph.training_data import elicited_steps, learned_rankings, preferences, prompt_set, ready
from aligndistill.stages import report, rounds, students, teacher_tokens
from aligndistill.stages.chains import chain_models, require_one_tokenizer, with_models_of_runs
from aligndistill.stages.provenance import origins
from aligndistill.store.stage import Given, Pipeline, Stage, pick, stage


def pipeline(config: RunConfig) -> Pipeline:
    """All stages that the report needs."""
    shown = dump_yaml(config.model_dump(mode="json", by_alias=True, exclude={"budget", "runtime"}))
    config = with_models_of_runs(resolved(config))
    require_one_tokenizer(config)
    named = named_models(config)
    named, given = with_labelled_start(config, named, prompt_set(config, named))
    of_round, promoted, trained, written, learned, reached, stops, orders = (Given() for _ in range(8))
    previous: Stage | None = None  # the answers of the round's start
    stop: Stage | None = None  # what decided that the round follows
    for each in config.all_rounds:
        known = named | promoted  # plus `student`, promoted by the previous round
        roles = known | {role: known[name] for role, name in each.roles.items()}  # start and reference
        data = of_round[each.name] = preferences(config, each, given, roles, dict(of_round), stop)
        if "order" in data:
            orders[each.name] = data["order"]
        compared = {each.of(role): held_out_answers(config, each.of(role), given, author=roles[role]) for role in each.compared}
        known = data | {"start_answers": previous or compared.get("start"), "rankings": learned_rankings(data)}
        of = {each.of(name): config.students[name] for name in each.students}
        new = {name: student(config, name, settings, roles, known, compared) for name, settings in of.items()}
        for name, author in new.items():
            start = named.get(f"start-{config.without_seed(name)}", named["start"])
            written[name] = held_out_answers(config, name, given, author=author, reference=start)
        written |= compared
        trained |= new
        learned |= of
        if each.promotes:
            name = each.of(each.promotes)
            compared = {"start": written["start"], "previous": known["start_answers"], "student": written[name]}
            made = reached[each.name] = progress(config, each, new[name], data, named, compared)
            promoted, previous = {"student": made}, written[name]
            if each.stop:
                stop = stops[each.name] = stage(each.of("stop"), rounds.stop, settings=each.stop, progress=made)
    followed = followings(config, trained, written, given, named)
    owns = {name: f"start-{config.without_seed(name)}" for name, one in config.students.items() if one.start is not None}
    about_students: Given = {"own_starts": owns, "students": {name: config.without_seed(name) for name in trained}}
    rewards = of_round["1"].get("reward_model")
    ends: Given = {"stops": stops, "orders": orders}
    scores = scored(config, named, given["prompts"], written, rewards, ends | about_students) if trained else None
    about: Given = {"run": config.name, "seed": config.seed, "shown": shown, "store": config.runtime.store.absolute()}
    about |= {"settings": learned, "judge": config.judge.kind if config.judge else None, "origins": origins(config).model_dump()}
    about["chain"] = chain_models(config)
    if reached:
        about["promoted"] = {each.name: each.of(each.promotes) for each in config.all_rounds if each.promotes}
    results: Given = {"students": trained, "evaluation": scores, "fidelity": followed, **elicited_steps(given["prompts"])}
    results |= ends | {"progress": reached}
    return Pipeline(stage("report", report.make, **about, rounds=of_round, **results))


def student(config: RunConfig, name: str, settings: Student, roles: Given, data: Given, compared: Given) -> Stage:
    """The round's start, or the student's own, trained by one objective, which declares its inputs: `reads = ("rankings",)`.

    `compared` has the answers of starts to the held-out prompts.
    """
    objective, start = settings.objective, settings.start or config.start
    shares_backbone = config.reward_model is not None and config.reward_model.model is None and settings.start is None
    if settings.start is not None:
        own = f"start-{config.without_seed(name)}"
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
    return stage(f"student-{name}", students.make, **learning, **inputs, models=models_of_judges, waits_for=ready(data))
