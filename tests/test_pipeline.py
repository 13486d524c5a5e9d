from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aligndistill.config.checks import check
from aligndistill.config.run import RunConfig
from aligndistill.pipeline import pipeline
from aligndistill.stages import prompts
from aligndistill.store import stage as store_stage
from aligndistill.store.stage import Stage
from tests.e2e.small_run import SIZES, small_config, write_data

SERVER = {"kind": "endpoint", "base_url": "http://localhost:1/v1", "name": "m"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the data of the small run."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    return tmp_path


def stages(config: dict[str, Any]) -> dict[str, Stage]:
    built = pipeline(RunConfig.model_validate(config)).stages
    assert len({stage.name for stage in built}) == len(built)
    return {stage.name: stage for stage in built}


def changed(change: Callable[[dict[str, Any]], Any]) -> set[str]:
    """The stages of the small run that a change rebuilds or adds."""
    config = small_config()
    before = {stage.fingerprint for stage in stages(small_config()).values()}
    change(config)
    return {name for name, stage in stages(config).items() if stage.fingerprint not in before}


LABELLED = {"candidates", "verdicts", "audit", "rankings"}
TRAINED = {"reward_model", "student-best_of_n", "student-dpo", "student-pro"}
ANSWERED = {"answers-best_of_n", "answers-dpo", "answers-pro"}
REPORTED = {"evaluation", "report"}


def test_a_stage_comes_after_what_it_needs(folder: Path) -> None:
    made: set[str] = set()
    for stage in pipeline(RunConfig.model_validate(small_config())).stages:
        assert {needed.name for needed in stage.inputs} <= made
        made.add(stage.name)
    assert stage.name == "report"


def test_nothing_is_trained_before_the_audit(folder: Path) -> None:
    built = pipeline(RunConfig.model_validate(small_config()))
    for trained in ("reward_model", "student-dpo"):
        assert "audit" in {stage.name for stage in built.upstream_of(trained)}


def test_a_model_may_be_named_like_a_stage(folder: Path) -> None:
    reward = {"kind": "likelihood", "model": "audit"}
    config = {**small_config(), "models": {"audit": small_config()["teacher"]}}
    config["students"] = {"ppo": {"objective": {"kind": "ppo", "reward": reward}}}
    made = stages(config)
    assert made["student-ppo"].given["models"] == {"audit": made["model-audit"]}


SOFT = {"objective": {"kind": "dpo", "labels": "soft"}}
HARD = {"objective": {"kind": "pro"}}
BEST = {"objective": {"kind": "best_of_n"}}
DISTILLED = {"objective": {"kind": "distil"}}


@pytest.mark.parametrize(
    ("students", "reward_labels", "enough"),
    [
        ({"soft": SOFT}, None, True),
        ({"soft": SOFT, "best": BEST}, None, True),  # any of equal answers is the best
        ({"soft": SOFT, "hard": HARD}, None, False),
        *(({kind: {"objective": {"kind": kind, "labels": "soft"}}}, None, True) for kind in ("simpo", "cpo", "orpo")),
        *(({kind: {"objective": {"kind": kind}}}, None, False) for kind in ("simpo", "cpo", "orpo")),
        ({"sppo": {"objective": {"kind": "sppo"}}}, None, True),
        ({"kto": {"objective": {"kind": "kto", "labels": "soft"}}}, None, False),  # equal answers cancel each other
        ({"soft": SOFT}, "soft", True),
        ({"soft": SOFT}, "hard", False),
        ({"hard": HARD}, None, False),
        ({"best": BEST}, None, False),
        ({"kd": DISTILLED}, None, True),  # it needs no order
        ({"kd": DISTILLED, "hard": HARD}, None, False),
        ({}, "soft", True),
        ({}, None, False),
    ],
)
def test_tied_rankings_are_enough_for_a_run_in_which_all_learn_from_ties(
    folder: Path, students: dict[str, Any], reward_labels: str | None, enough: bool
) -> None:
    config = {**small_config(), "students": students, "reward_model": reward_labels and {"labels": reward_labels}}
    assert RunConfig.model_validate(config).learns_ties == enough
    assert stages(config)["rankings"].given["learns_ties"] == enough


def test_whether_ties_are_enough_changes_no_fingerprint(folder: Path) -> None:
    soft = {**small_config(), "students": {"soft": SOFT}, "reward_model": None}
    hard = {**soft, "students": {"hard": HARD}}
    assert stages(soft)["rankings"].fingerprint == stages(hard)["rankings"].fingerprint


@pytest.mark.parametrize("kind", ["simpo", "cpo", "orpo"])
def test_a_student_without_a_reference_is_still_measured_against_the_start(folder: Path, kind: str) -> None:
    """Nothing holds it near the start, so its KL matters most."""
    made = stages({**small_config(), "students": {kind: {"objective": {"kind": kind}}}})
    assert "reference" not in made[f"student-{kind}"].given
    assert made[f"answers-{kind}"].given["reference"] == made["start"]


def test_a_name_decides_nothing(folder: Path) -> None:
    """A student under another name is the same student; two equal ones share what was made."""
    config = small_config()
    built = stages({**config, "students": {"first": config["students"]["dpo"], "second": config["students"]["dpo"]}})
    before = stages(config)["student-dpo"]
    (folder / f"student-dpo-{before.fingerprint}").mkdir()
    for name in ("student-first", "student-second"):
        assert built[name].folder(folder) == before.folder(folder)


def test_what_cards_say_changes_no_fingerprint(folder: Path) -> None:
    assert changed(lambda c: c.update(card={"license": "mit", "language": ["en"]})) == set()


def test_a_wrong_argument_is_found_when_the_stage_is_built() -> None:
    with pytest.raises(TypeError, match="prompt"):
        store_stage.stage("prompts", prompts.read, settings=None, prompt=1)


def test_building_a_pipeline_makes_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    stages(small_config())
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c["runtime"].update(save_steps=50, per_device_train_batch_size=1, report_to=["tensorboard"]), set()),
        (lambda c: c["students"]["dpo"].update(learning_rate=5e-3), {"student-dpo", "answers-dpo", *REPORTED}),
        (lambda c: c["students"]["dpo"]["objective"].update(beta=0.5), {"student-dpo", "answers-dpo", *REPORTED}),
        (lambda c: c["students"].pop("pro"), REPORTED),
        (
            lambda c: c["students"].update(best_of_n={"objective": {"kind": "best_of_n"}, "max_steps": 1}),
            {"student-best_of_n", "answers-best_of_n", *REPORTED},
        ),
        (lambda c: c["reward_model"].update(labels="soft"), {"reward_model", *REPORTED}),
        (lambda c: c["evaluation"].update(truth=None), {"audit", *REPORTED}),
        (lambda c: c.update(audit={"stop": {"canaries": 0.9}}), {"audit", "report"}),
        (lambda c: c.update(audit={"probes": {"canaries": 3}}), {*LABELLED, *TRAINED, *ANSWERED, *REPORTED} - {"candidates"}),
        (lambda c: c["rankings"].update(tie_margin=0.5), {"rankings", *TRAINED, *ANSWERED, *REPORTED}),
        (lambda c: c["candidates"].update(temperature=0.5), {*LABELLED, *TRAINED, *ANSWERED, *REPORTED}),
        (
            lambda c: c["teacher"]["sft"].update(max_steps=5),
            {"teacher", "answers-teacher", "verdicts", "audit", "rankings", *TRAINED, *ANSWERED, *REPORTED},
        ),
        (lambda c: c.update(name="other"), {"report"}),
    ],
)
def test_a_change_reaches_what_depends_on_it_and_nothing_else(folder: Path, change: Any, expected: set[str]) -> None:
    def prepared(config: dict[str, Any]) -> None:
        config.setdefault("rankings", {})
        change(config)

    assert changed(prepared) == expected


def test_a_changed_file_is_noticed(folder: Path) -> None:
    before = stages(small_config())
    demonstrations = folder / "teacher_demonstrations.jsonl"
    demonstrations.write_text(demonstrations.read_text() + "\n")
    after = stages(small_config())
    assert after["teacher"].fingerprint != before["teacher"].fingerprint
    assert after["start"].fingerprint == before["start"].fingerprint
    assert after["prompts"].fingerprint == before["prompts"].fingerprint


def test_which_server_samples_is_not_hashed_but_whether_one_does_is(folder: Path) -> None:
    def student(**server: Any) -> str:
        objective = {"kind": "ppo", "reward": "judge", "samples_per_prompt": 2, **({"server": server} if server else {})}
        return stages({**small_config(), "students": {"ppo": {"objective": objective}}})["student-ppo"].fingerprint

    one = student(base_url="http://here:8000/v1", name="start")
    another = {"concurrency": 2, "timeout_seconds": 5, "max_retries": 0, "weights": "/shared", "api_key_env": "KEY"}
    assert student(base_url="https://there/v1", name="other", **another) == one
    assert student() != one


def test_a_changed_template_is_another_judge(folder: Path) -> None:
    (folder / "mine.txt").write_text("{prompt} {first} {second}")
    config = {**small_config(), "judge": {"kind": "pairwise", "template": "mine.txt"}}
    before = stages(config)
    (folder / "mine.txt").write_text("{prompt} {first} {second}!")
    after = stages(config)
    assert after["verdicts"].fingerprint != before["verdicts"].fingerprint
    assert after["candidates"].fingerprint == before["candidates"].fingerprint


def test_files_in_the_home_folder_are_noticed_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    config = small_config()
    config["prompts"]["source"]["path"] = "~/prompts.jsonl"
    before = stages(config)["prompts"].fingerprint
    (folder / "prompts.jsonl").write_text("changed")
    assert stages(config)["prompts"].fingerprint != before


def test_each_judge_has_its_own_model(folder: Path) -> None:
    """The labelling judge and the evaluation's may both have models of their own."""
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(name)
    config = {
        **small_config(),
        "judge": {"kind": "pairwise", "model": {"model": "./one"}},
        "evaluation": {"judge": {"kind": "pairwise", "model": {"model": "./two"}}},
    }
    built = stages(config)
    (labelling,), (evaluating,) = (built[name].given["models"].values() for name in ("verdicts", "evaluation"))
    assert labelling.given["settings"].model == "./one"
    assert evaluating.given["settings"].model == "./two"
    del config["evaluation"]
    built = stages(config)
    assert built["evaluation"].given["models"] == built["verdicts"].given["models"]


def test_models_may_be_named_as_stages_are(folder: Path) -> None:
    config = small_config()
    other = {"from_scratch": SIZES, "sft": {"demonstrations": {"path": "teacher_demonstrations.jsonl"}}}
    config |= {"models": {"verdicts": other, "judge_model": other}}
    config["candidates"]["from"] = ["start", "verdicts", "judge_model"]
    built = stages(config)
    assert built["candidates"].given["authors"]["verdicts"].name == "model-verdicts"
    assert {needed.name for needed in built["verdicts"].inputs} == {"prompts", "candidates", "teacher"}


@pytest.mark.parametrize("name", ["prompts", "rankings", "a/b", ".."])
def test_names_that_cannot_be(folder: Path, name: str) -> None:
    other = {"from_scratch": SIZES, "sft": {"demonstrations": {"path": "teacher_demonstrations.jsonl"}}}
    config = {**small_config(), "models": {name: other}, "students": {name: {"objective": {"kind": "dpo"}}}}
    problems = [problem.path for problem in check(RunConfig.model_validate(config))]
    assert problems.count(("models", name)) == problems.count(("students", name)) == 1


def test_a_teacher_behind_a_server_writes_and_judges_without_a_model_here(folder: Path) -> None:
    config = {**small_config(), "teacher": SERVER, "judge": {"kind": "pairwise"}}
    config["candidates"]["from"] = ["start", "teacher"]
    built = stages(config)
    assert "teacher" not in built
    assert {needed.name for needed in built["verdicts"].inputs} == {"prompts", "candidates"}
    assert "answers-teacher" in built
    slower = {**config, "teacher": {**SERVER, "concurrency": 1, "max_retries": 0, "timeout_seconds": 9, "api_key_env": "KEY"}}
    for name, stage in stages(slower).items():
        assert stage.fingerprint == built[name].fingerprint or name == "report", name


def test_a_distilled_student_reads_the_teacher_and_no_reference(folder: Path) -> None:
    config = small_config()
    config["teacher"]["sft"]["demonstrations"] = config["sft"]["demonstrations"]  # one tokenizer
    config["students"] = {"kd": {"objective": {"kind": "distil", "on": "all"}}, "dpo": config["students"]["dpo"]}
    built = stages(config)
    assert {needed.name for needed in built["student-kd"].inputs} == {"start", "rankings", "teacher"}
    assert {needed.name for needed in built["student-dpo"].inputs} == {"start", "rankings"}
    kd = {"kind": "distil", "on": "all", "top_k": 64}
    config["students"] = {
        "one": {"objective": kd},
        "two": {"objective": {**kd, "divergence": "jsd"}, "learning_rate": 1e-3},
        "three": {"objective": {**kd, "top_k": 32}},
    }
    stored = stages(config)
    assert {needed.name for needed in stored["student-one"].inputs} == {"start", "rankings", "teacher_tokens-one"}
    assert {needed.name for needed in stored["teacher_tokens-one"].inputs} == {"start", "rankings", "teacher"}
    fingerprints = [stored[f"teacher_tokens-{name}"].fingerprint for name in ("one", "two", "three")]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    config["students"] = {"kd": {"objective": {"kind": "distil", "on": "all"}}}
    config["teacher"]["sft"]["max_steps"] = 5
    assert stages(config)["student-kd"].fingerprint != built["student-kd"].fingerprint


def test_a_student_distilled_on_its_own_answers_needs_no_rankings(folder: Path) -> None:
    config = small_config()
    config["teacher"]["sft"]["demonstrations"] = config["sft"]["demonstrations"]  # one tokenizer
    for section in ("judge", "candidates", "reward_model"):
        del config[section]
    config["students"] = {"opd": {"objective": {"kind": "on_policy_distil"}}}
    built = stages(config)
    assert {needed.name for needed in built["student-opd"].inputs} == {"start", "prompts", "teacher"}
    assert not {"rankings", "audit"} & built.keys()
    config["teacher"]["sft"]["max_steps"] = 5
    assert stages(config)["student-opd"].fingerprint != built["student-opd"].fingerprint


def test_ready_made_rankings_need_neither_candidates_nor_judge(folder: Path) -> None:
    config = small_config()
    for section in ("prompts", "candidates", "judge", "teacher"):
        del config[section]
    (folder / "pairs.jsonl").write_text("")
    built = stages({**config, "rankings": {"source": {"path": "pairs.jsonl"}}})
    assert not {"candidates", "verdicts"} & built.keys()
    assert built["rankings"].inputs == ()
    assert built["prompts"].inputs == (built["rankings"],)
    assert {needed.name for needed in built["answers-dpo"].inputs} == {"prompts", "start", "student-dpo"}


def test_the_report_knows_the_judges_of_labelling_and_of_the_evaluation(folder: Path) -> None:
    def kinds(config: dict[str, Any]) -> tuple[str | None, str | None]:
        given = stages(config)["report"].given
        return given["judge"], given["evaluation_judge"]

    config, by_length = small_config(), {"judge": {"kind": "function", "function": "lengths:score"}}
    (folder / "lengths.py").write_text("")
    own = config["judge"]["kind"]
    assert kinds(config) == (own, own)
    assert kinds({**config, "evaluation": by_length}) == (own, "function")
    assert kinds({**config, "evaluation": {"judge": None}}) == (own, None)
    (folder / "pairs.jsonl").write_text("")
    ready = {key: one for key, one in config.items() if key not in ("prompts", "candidates", "judge", "teacher")}
    ready["rankings"] = {"source": {"path": "pairs.jsonl"}}
    assert kinds({**ready, "evaluation": by_length}) == (None, "function")


def test_training_sampling_and_judging_take_all_processes(folder: Path) -> None:
    built = stages(small_config())
    together = {name for name, stage in built.items() if stage.together}
    assert {"start", "teacher", "candidates", "verdicts", "evaluation", *TRAINED, *ANSWERED} <= together
    assert not together & {"prompts", "audit", "rankings", "report"}


# ------------------------------------------------------------------------------------------------------------- rounds

ROUNDS = {"count": 3, "promotes": "dpo"}


def test_the_first_of_several_rounds_is_a_run_without_rounds(folder: Path) -> None:
    plain, repeated = stages(small_config()), stages(small_config() | {"rounds": ROUNDS})
    for name in plain.keys() - REPORTED:
        assert repeated[name].fingerprint == plain[name].fingerprint, name


def test_what_each_round_reads(folder: Path) -> None:
    built = stages(small_config() | {"rounds": {**ROUNDS, "data": "all", "reference": "start"}})
    second = built["student-dpo-r2"].given
    assert second["start"] is built["progress"]
    assert second["reference"] is built["start"]
    assert second["rankings"] is built["all_rankings-r2"]
    assert built["candidates-r2"].given["authors"] == {"start": built["progress"]}
    assert built["candidates-r2"].waits_for is built["stop"]
    assert built["all_rankings-r3"].given == {"before": built["all_rankings-r2"], "latest": built["rankings-r3"]}
    assert built["reward_model-r3"].given["rankings"] is built["all_rankings-r3"]
    assert built["answers-dpo-r3"].given["reference"] is built["start"]
    answers = {"start": built["answers-start"], "previous": built["answers-dpo-r2"], "student": built["answers-dpo-r3"]}
    assert built["progress-r3"].given["answers"] == answers
    assert built["report"].given["promoted"] == {"1": "dpo", "2": "dpo-r2", "3": "dpo-r3"}
    assert "stop-r3" not in built
    assert "student-best_of_n-r2" not in built


def test_a_mixture_draws_from_all_earlier_rounds_and_waits_for_an_order(folder: Path) -> None:
    built = stages(small_config() | {"rounds": {**ROUNDS, "data": {"latest": 0.7}}})
    mixed = built["mixed_rankings-r3"].given
    assert mixed["earlier"] == {"1": built["rankings"], "2": built["rankings-r2"]}
    assert (mixed["latest"], mixed["share"]) == (built["rankings-r3"], 0.7)
    assert built["student-dpo-r3"].given["rankings"] is built["mixed_rankings-r3"]
    assert built["student-dpo-r3"].waits_for is built["reward_model-r3"].waits_for is built["order-r3"]
    assert built["student-dpo"].waits_for is built["audit"]
    assert [built[name].given["may_be_tied"] for name in ("rankings", "rankings-r2")] == [False, True]


def test_another_stop_rule_trains_nothing_again(folder: Path) -> None:
    rounds = {**ROUNDS, "stop": {"length_growth": 2.0}}
    one, other = stages(small_config() | {"rounds": ROUNDS}), stages(small_config() | {"rounds": rounds})
    assert {name for name in one if one[name].fingerprint != other[name].fingerprint} == {"stop", "stop-r2", *REPORTED}


MORE = {"name": "more", "kind": "expand", "target": 10, "model": "teacher"}
HARDER = {"name": "harder", "kind": "evolve", "model": "start"}


def test_steps_of_elicitation_come_one_after_another(folder: Path) -> None:
    built = stages({**small_config(), "prompts": {**small_config()["prompts"], "elicit": [MORE, HARDER]}})
    assert {one.name for one in built["prompts-more"].inputs} == {"teacher", "prompts"}
    assert {one.name for one in built["prompts-harder"].inputs} == {"start", "prompts-more"}
    for name in ("candidates", "verdicts", "evaluation", "answers-dpo"):
        assert built["prompts-harder"] in built[name].inputs
        assert built["prompts"] not in built[name].inputs
    assert {"prompts-more", "prompts-harder"} <= {one.name for one in built["report"].inputs}


def rounds_with(*steps: dict[str, Any], prompts: Any = "same", **rounds: Any) -> dict[str, Any]:
    small = small_config()
    data = {**small["prompts"], "elicit": list(steps), "filters": {"duplicates": 0.9}}
    return {**small, "prompts": data, "rounds": {**ROUNDS, "prompts": prompts, **rounds}}


WEAK = {"name": "weak", "kind": "evolve", "weak_seeds": 5}


def test_steps_with_weak_seeds_come_before_each_round_but_the_first(folder: Path) -> None:
    plain, built = stages(rounds_with(MORE)), stages(rounds_with(MORE, WEAK, {**HARDER, "weak_seeds": 3}))
    assert "prompts-weak" not in built
    first = {name for name in plain if not name.endswith(("-r2", "-r3"))} - REPORTED
    assert {name for name in first if plain[name].fingerprint != built[name].fingerprint} == set()
    step = built["prompts-weak-r3"]
    assert step.given["prompts"] is built["filters-r2"]
    assert step.given["weak"] == {"prompts": built["filters"], "rankings": built["rankings-r2"]}
    assert step.waits_for is built["stop-r2"]
    assert built["prompts-harder-r3"].given["prompts"] is step
    assert built["prompts-harder-r3"].given["models"] == {"start": built["progress-r2"]}  # the student of the round before
    assert built["filters-r3"].given["known"] is built["filters-r2"]
    assert [built[f"candidates-r{n}"].given["prompts"] for n in (2, 3)] == [built["filters-r2"], built["filters-r3"]]
    for name in ("evaluation", "answers-dpo-r3"):  # held-out prompts are those of the run
        assert built[name].given["prompts"] is built["filters"]
    steps = ["prompts-more", "prompts-weak-r2", "prompts-harder-r2", "prompts-weak-r3", "prompts-harder-r3"]
    assert list(built["report"].given["elicited"]) == steps
    seeds = [built[f"prompts-weak-r{n}"].given["seed"] for n in (2, 3)]
    assert seeds == [built["prompts-more"].given["seed"] + n for n in (1, 2)]


def test_new_prompts_join_the_part_of_their_round(folder: Path) -> None:
    built = stages(rounds_with(WEAK, prompts={"per_round": 5, "repeats": 1}, weak=0.5, stop=None))
    joined = built["prompts-round-r3"].given
    assert joined == {"prompts": built["prompts-part-r3"], "known": built["filters-r2"], "written": built["filters-r3"]}
    assert built["prompts-part-r3"].given["prompts"] is built["filters"]
    assert built["candidates-r3"].given["prompts"] is built["prompts-round-r3"]
    assert built["prompts-weak-r3"].waits_for is built["progress-r2"]  # without a rule, the student is waited for
    assert "prompts-round" not in built


@pytest.mark.parametrize("rounds", [{}, {"weak": 0.5}], ids=["in order", "weak"])
def test_one_more_round_of_sized_prompts_leaves_the_rounds_before_as_they_are(folder: Path, rounds: dict[str, Any]) -> None:
    sized = {"prompts": {"per_round": 5, "repeats": 2}, **rounds}
    three, four = (stages(rounds_with(**sized, count=count)) for count in (3, 4))
    assert {name for name in three if three[name].fingerprint != four[name].fingerprint} == REPORTED
    assert {"prompts-part", "prompts-part-r3", "answers-dpo-r3"} <= three.keys()
    larger = stages(rounds_with(**{**sized, "prompts": {"per_round": 6, "repeats": 2}}, count=3))
    assert three["prompts-part"].fingerprint != larger["prompts-part"].fingerprint


def test_prompts_that_may_be_used_once_more_leave_the_parts_in_order_as_they_are(folder: Path) -> None:
    once, twice = (stages(rounds_with(prompts={"per_round": 5, "repeats": repeats}, count=3)) for repeats in (1, 2))
    assert {name for name in once if once[name].fingerprint != twice[name].fingerprint} == {"report"}


def test_a_step_changes_what_comes_after_it_alone(folder: Path) -> None:
    def eliciting(*steps: dict[str, Any], **sections: Any) -> dict[str, str]:
        config = {**small_config(), **sections, "prompts": {**small_config()["prompts"], "elicit": list(steps)}}
        return {name: one.fingerprint for name, one in stages(config).items()}

    without, one, two = eliciting(), eliciting(MORE), eliciting(MORE, HARDER)
    assert [without[name] == one[name] for name in ("prompts", "start", "teacher", "candidates")] == [True, True, True, False]
    assert one["prompts-more"] == two["prompts-more"]
    assert two["prompts-more"] == eliciting(MORE, {**HARDER, "rounds": 2})["prompts-more"]
    assert two["prompts-harder"] != eliciting({**MORE, "target": 11}, HARDER)["prompts-harder"]
    server = {"models": {"server": SERVER}}
    priced = {**server, "budget": {"prices": {"m": {"prompt": 1.0, "completion": 1.0}}}}
    asked = {**MORE, "model": "server"}
    assert eliciting(asked, **server)["prompts-more"] == eliciting(asked, **priced)["prompts-more"]


def test_a_changed_file_of_topics_is_noticed(folder: Path) -> None:
    def fingerprint() -> str:
        step = {"name": "topics", "kind": "curate", "topics": "topics.txt"}
        return stages({**small_config(), "prompts": {**small_config()["prompts"], "elicit": [step]}})["prompts-topics"].fingerprint

    (folder / "topics.txt").write_text("rivers\n")
    before = fingerprint()
    (folder / "topics.txt").write_text("rivers\nlakes\n")
    assert fingerprint() != before


# --------------------------------------------------------------------------------------------- students with own starts


def with_own_start(**more: Any) -> dict[str, Any]:
    """The small run, in which `dpo` is trained from another start than `pro`."""
    config = small_config()
    own = {"from_scratch": {**SIZES, "vocab_size": 400}, "sft": config["sft"]}
    config["students"]["dpo"] = {**config["students"]["dpo"], "start": {**own, **more}}
    return config


def test_a_student_is_trained_from_its_own_start_and_measured_from_it(folder: Path) -> None:
    plain, built = stages(small_config()), stages(with_own_start())
    assert built["student-dpo"].given["start"] is built["model-start-dpo"]
    assert built["answers-dpo"].given["reference"] is built["model-start-dpo"]
    assert built["answers-start-dpo"].given["author"] is built["model-start-dpo"]
    assert built["evaluation"].given["own_starts"] == {"dpo": "start-dpo"}
    assert set(built["evaluation"].given["answers"]) == {"start", "teacher", "start-dpo", "best_of_n", "dpo", "pro"}
    changed = {"student-dpo", "answers-dpo", *REPORTED}
    new = {"model-start-dpo", "answers-start-dpo"}
    assert {name for name in built if name not in plain or built[name].fingerprint != plain[name].fingerprint} == changed | new


def test_objectives_with_more_inputs_read_the_own_start(folder: Path) -> None:
    config = with_own_start()
    ppo = {"kind": "ppo", "reward": "judge", "evaluate_every": 1, "critic": "separate"}
    config["students"] = {"ppo": {"objective": ppo, "start": config["students"]["dpo"]["start"], "max_steps": 16}}
    given = stages(config)["student-ppo"].given
    assert given["start"] is given["reference"] is given["critic"]
    assert given["start"].name == "model-start-ppo"
    assert given["start_answers"].given["author"] is given["start"]


def test_all_starts_may_write_candidates(folder: Path) -> None:
    config = with_own_start()
    config["candidates"]["from"] = ["start", "start-dpo"]
    assert list(check(RunConfig.model_validate(config))) == []
    built = stages(config)
    assert built["candidates"].given["authors"] == {"start": built["start"], "start-dpo": built["model-start-dpo"]}


def test_adapters_of_an_own_start(folder: Path) -> None:
    config = RunConfig.model_validate(with_own_start(from_scratch=None, model="./other", lora={"r": 4}))
    rates = {"dpo": config.students["dpo"], "pro": config.students["pro"]}
    assert {name: ("students", name) in config.adapter_sections for name in rates} == {"dpo": True, "pro": False}
    assert ("students", "dpo", "start", "sft") in config.adapter_sections
    built = stages(config.model_dump(mode="json", by_alias=True, exclude_unset=True))
    assert (built["student-dpo"].given["lora"].r, built["student-pro"].given["lora"]) == (4, None)


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        ({"rounds": ROUNDS}, ("students", "dpo", "start"), "start from the promoted one"),
        ({"models": {"start-dpo": SERVER}}, ("models", "start-dpo"), "this is the name of the start of student 'dpo'"),
    ],
)
def test_own_starts_that_cannot_be(folder: Path, change: dict[str, Any], key: tuple[str, ...], said: str) -> None:
    found = [one for one in check(RunConfig.model_validate(with_own_start() | change)) if one.path == key]
    assert len(found) == 1
    assert said in found[0].text


def test_own_starts_need_what_the_start_needs(folder: Path) -> None:
    config = with_own_start(sft=None)
    paths = [one.path for one in check(RunConfig.model_validate(config))]
    assert paths == [("students", "dpo", "start", "from_scratch")]
    config = with_own_start(from_scratch=None, model="./other", quantize="nf4")
    paths = [one.path for one in check(RunConfig.model_validate(config))]
    assert set(paths) == {("students", "dpo", "start", "quantize")}


def test_a_distilled_student_needs_its_own_starts_tokens(folder: Path) -> None:
    config = with_own_start()
    config["teacher"]["sft"]["demonstrations"] = config["sft"]["demonstrations"]  # one tokenizer with the run's start
    own = config["students"]["dpo"]["start"]
    kd = {"objective": {"kind": "distil", "on": "all"}}
    config["students"] = {"kd": kd, "other": {**kd, "start": own}}
    assert [one.path for one in check(RunConfig.model_validate(config))] == [("students", "other", "objective", "kind")]
    config["students"]["other"]["start"] = {**own, "from_scratch": SIZES}
    assert list(check(RunConfig.model_validate(config))) == []


# ---------------------------------------------------------------------------------------------------------------- seeds


def test_seeds_share_the_data_and_train_apart(folder: Path) -> None:
    config = small_config()
    config["students"]["ppo"] = {"objective": {"kind": "ppo"}, "max_steps": 16}
    plain, built = stages(config), stages(config | {"seeds": [3, 4]})  # 3 is the seed of the run
    assert {name for name in built if name.startswith("student-")} == {
        f"student-{name}-s{seed}" for name in ("best_of_n", "dpo", "pro", "ppo") for seed in (3, 4)
    }
    for name in ("candidates", "verdicts", "rankings", "start", "answers-start"):
        assert built[name].fingerprint == plain[name].fingerprint, name
    for name in ("student-dpo", "student-ppo", "reward_model"):  # what is finished with the run's seed is found again
        assert built[f"{name}-s3"].fingerprint == plain[name].fingerprint != built[f"{name}-s4"].fingerprint, name
    assert built["student-ppo-s4"].given["reward_model"] is built["reward_model-s4"]
    assert built["evaluation"].given["students"]["dpo-s4"] == "dpo"
    assert built["evaluation"].given["reward_model"] is built["reward_model-s3"]


def test_seeds_of_a_student_with_its_own_start_share_it(folder: Path) -> None:
    built = stages(with_own_start() | {"seeds": [3, 4]})
    assert built["student-dpo-s4"].given["start"] is built["model-start-dpo"]
    assert built["evaluation"].given["own_starts"] == {"dpo-s3": "start-dpo", "dpo-s4": "start-dpo"}


def test_a_student_may_have_a_seed_of_its_own(folder: Path) -> None:
    config = small_config()
    config["students"]["dpo"]["seed"] = 8
    assert stages(config)["student-dpo"].given["seed"] == 8
    assert changed(lambda c: c["students"]["dpo"].update(seed=8)) == {"student-dpo", "answers-dpo", *REPORTED}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seeds": [1, 1]}, ("seeds",)),
        ({"rounds": ROUNDS}, ("seeds",)),
        ({"students": {"dpo": {"objective": {"kind": "dpo"}, "seed": 1}}}, ("students", "dpo", "seed")),
        ({"students": {"dpo-s1": {"objective": {"kind": "dpo"}}}}, ("students", "dpo-s1")),
    ],
)
def test_seeds_that_cannot_be(folder: Path, change: dict[str, Any], key: tuple[str, ...]) -> None:
    assert key in [one.path for one in check(RunConfig.model_validate({**small_config(), "seeds": [1, 2]} | change))]
