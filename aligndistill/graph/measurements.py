"""The stages that measure what `pipeline.py` builds: answers to held-out prompts, and what is read from them."""

from collections.abc import Sequence
from typing import Any

from aligndistill.config.rounds import Round
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import models_of
from aligndistill.graph.elicited import elicited_steps
from aligndistill.graph.round_stages import RoundStages, merged
from aligndistill.stages import answers as answering
from aligndistill.stages import evaluation, fidelity, models, rounds
from aligndistill.store.stage import Given, Stage, pick, stage


def held_out_answers(config: RunConfig, name: str, data: Given, **models: Any) -> Stage:
    """One author's answers to the held-out prompts; with a reference, also the KL from it."""
    sampling: Given = {"name": name, "sampling": config.answer_sampling, "prompts": data["prompts"], "seed": config.seed}
    return stage(f"answers-{name}", answering.make, **sampling, **models, waits_for=data.get("audit"))


def measurements(config: RunConfig, models: Given, data: Given, built: Sequence[RoundStages]) -> Given:
    """What the report reads of all rounds: their stages, the evaluation, how closely each student follows the teacher."""
    settings = {name: one for each in built for name, one in each.settings.items()}
    students, answers = merged(each.students for each in built), merged(each.answers for each in built)
    followed = followings(config, students, answers, data, models)
    ends: Given = {"stops": {each.name: each.stop for each in built if each.stop}}
    ends["orders"] = {each.name: each.data["order"] for each in built if "order" in each.data}
    scores = scored(config, models, data["prompts"], answers, built, ends) if students else None
    results: Given = {"rounds": {each.name: each.data for each in built}, "students": students, "settings": settings}
    results |= {"evaluation": scores, "fidelity": followed, **elicited_steps(built[-1].prompts), **ends}
    results["progress"] = {each.name: each.progress for each in built if each.progress}
    return results | ({"promoted": {each.name: each.promoted for each in built}} if results["progress"] else {})


def judge_kinds(config: RunConfig) -> Given:
    """The kinds of the judge that labels and of the one that compares held-out answers, as arguments of the report's stage."""
    comparing = config.evaluation.judge
    return {
        "judge": config.judge.kind if config.judge is not None else None,
        "evaluation_judge": comparing.kind if comparing is not None and comparing != "same" else None,
    }


def scored(config: RunConfig, models: Given, prompts: Stage, answers: Given, built: Sequence[RoundStages], ends: Given) -> Stage:
    """All answers, scored by truth, reward model and judge. What may end the rounds decides which answers there are."""
    judging: Given = {"settings": config.evaluation, "models": pick(models, models_of(config.evaluation)), "seed": config.seed}
    about: Given = {"students": {name: config.without_seed(name) for each in built for name in each.students}}
    owns = {name: config.own_start(name) for name, one in config.students.items() if one.start is not None}
    about |= {name: one for name, one in (ends | {"own_starts": owns}).items() if one}
    scores: Given = {"prompts": prompts, "answers": answers, "reward_model": built[0].data.get("reward_model")}
    return stage("evaluation", evaluation.make, version=2, **judging, **scores, **about)


def progress(config: RunConfig, each: Round, student: Stage, data: Given, named: Given, answers: Given) -> Stage:
    """The student that the next round starts from, compared with the round's own start."""
    judging: Given = {"evaluation": config.evaluation, "seed": config.seed, "round": each.name}
    judging |= {"models": pick(named, models_of(config.evaluation))}
    return stage(
        each.of("progress"), rounds.compare, **judging, answers=answers, **pick(data, ("prompts", "rankings")), student=student
    )


def followings(config: RunConfig, trained: Given, written: Given, data: Given, named: Given) -> Given:
    """How closely each student follows the teacher, and its quantised copy the student; the copies' answers join `written`."""
    found: Given = {}
    for name, one in trained.items():
        if config.evaluation.fidelity:
            found[name] = following(name, one, "teacher", named["teacher"], written, data)
        if kind := config.evaluation.quantized:
            copy = f"{name}{models.COPY}{kind}"
            quantized = stage(f"model-{copy}", models.quantised, student=one, kind=kind)
            written[copy] = held_out_answers(config, copy, data, author=quantized)
            found[copy] = following(copy, quantized, name, one, written, data)
    return found


def following(name: str, student: Stage, followed: str, teacher: Stage, written: Given, data: Given) -> Stage:
    """How closely one model follows another, on the answers of both."""
    texts: Given = {"student_answers": written[name], "teacher_answers": written[followed], "prompts": data["prompts"]}
    return stage(f"fidelity-{name}", fidelity.make, student=student, teacher=teacher, **texts)
