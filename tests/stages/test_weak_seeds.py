"""Steps that begin with what the student was weak at: which prompts models see, and what is made of what they write."""

import re
from pathlib import Path
from typing import Any

import pytest

from aligndistill.chat.scripted import ScriptedChat
from aligndistill.config.elicitation import Curate, Evolve, Expand
from aligndistill.preferences.difficulty import Difficulty
from aligndistill.records import Dropped, Prompt, Ranking, Response, prompt_id
from aligndistill.reporting.written_data import ElicitationMetrics
from aligndistill.stages.files import DROPPED, ELICITATION, PROMPTS, RANKINGS, SEEDS, TIES
from aligndistill.stages.round_metrics import new_prompts
from aligndistill.stages.weak_prompts import WeakSeed
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.store.stage import StageResult
from tests.elicitation.prompts import HELD_OUT, TRAIN, all_prompts
from tests.elicitation.prompts import prompt as prompt_of
from tests.elicitation.scripted_teacher import user
from tests.stages.test_elicitation_stage import CountedChat, made, prompts_in

EVOLVE = Evolve(name="weak", kind="evolve", weak_seeds=2)
EARLIER = prompt_of("Written for an earlier round, and hard for the student")


def ranked(prompt: Prompt, behind: float) -> Ranking:
    """The teacher's answer is so many logits better than the student's."""
    scores = sorted((("teacher", behind), ("start", 0.0)), key=lambda one: -one[1])
    answers = tuple(Response(text=by, score=score, candidate_id=by, author=by) for by, score in scores)
    return Ranking(prompt_id=prompt.id, split=prompt.split, messages=prompt.messages, responses=answers)


def weak(folder: Path, behind: dict[int, float]) -> dict[str, Path]:
    """The run's prompts, and rankings of a round in which the student was so far behind, by the numbers of the prompts.

    The student is furthest behind where it may not be looked at: at held-out prompts, and at one that was written for a round.
    """
    places = {"prompts": folder / "run", "rankings": folder / "rankings"}
    for place in places.values():
        place.mkdir(parents=True)
    every = all_prompts()
    write_jsonl(places["prompts"] / PROMPTS, every)
    hidden = [ranked(one, 99.0) for one in (*every[len(TRAIN) :], EARLIER)]
    rows = [ranked(every[number], one) for number, one in behind.items()]
    write_jsonl(places["rankings"] / RANKINGS, [*hidden, *rows[1:]])
    write_jsonl(places["rankings"] / TIES, rows[:1])
    return places


def run(folder: Path, step: Any, chat: ScriptedChat, behind: dict[int, float], **changes: Any) -> StageResult:
    return made(folder, step, chat, weak=weak(folder / "weak", behind), round="2", **changes)


def new_texts(folder: Path) -> list[str]:
    return [one.messages[-1].content for one in prompts_in(folder)[len(all_prompts()) :]]


def metrics_of(folder: Path) -> ElicitationMetrics:
    return ElicitationMetrics.model_validate_json((folder / "stage" / ELICITATION).read_bytes())


def test_the_weakest_training_prompts_of_the_run_are_evolved_and_no_other(tmp_path: Path) -> None:
    chat = CountedChat()
    result = run(tmp_path, EVOLVE, chat, {0: 3.5, 1: -2.0, 4: 0.5, 6: 5.0})  # 0 is tied
    asked = {found[1] for text, _ in chat.asked if (found := re.search(r"-----\n(.*?)\n-----", text))}
    assert asked == {TRAIN[6], TRAIN[0]}
    assert result.counts["new"] == 2
    rows = list(read_jsonl(tmp_path / "stage" / SEEDS, WeakSeed))
    assert [(one.id, one.difficulty) for one in rows] == [(prompt_id(user(TRAIN[6])), 5.0), (prompt_id(user(TRAIN[0])), 3.5)]
    assert rows[0].accept_rate == pytest.approx(1 / (1 + 2.718281828**5))
    parents = {one.lineage.parent for one in prompts_in(tmp_path)[len(all_prompts()) :] if one.lineage}
    assert parents == {one.id for one in rows}
    assert (metrics_of(tmp_path).round, metrics_of(tmp_path).seeds, metrics_of(tmp_path).name) == ("2", 2, "weak, round 2")


@pytest.mark.parametrize(
    "step",
    [
        Expand(name="weak", kind="expand", target=8, weak_seeds=3),
        Curate(name="weak", kind="curate", topics={"generate": 2}, per_topic=3, weak_seeds=3),
    ],
)
def test_examples_are_the_weakest_prompts(tmp_path: Path, step: Any) -> None:
    chat = CountedChat()
    run(tmp_path, step, chat, {0: 1.0, 1: 4.0, 2: 5.0, 3: 6.0, 4: 0.5})
    shown = {text for text in (*TRAIN, *HELD_OUT, EARLIER.messages[0].content) if any(text in one for one, _ in chat.asked)}
    assert shown == {TRAIN[1], TRAIN[2], TRAIN[3]}


def test_what_repeats_a_held_out_prompt_is_dropped(tmp_path: Path) -> None:
    """The teacher knows them all and writes nothing else, once with a word before, once with another word."""

    def leak(messages: Any, sample: int) -> str:
        return [f"Please: {HELD_OUT[0]}", HELD_OUT[1].replace("river", "rivers"), "Why do owls hunt at night?"][sample % 3]

    result = run(tmp_path, EVOLVE.model_copy(update={"per_prompt": 3, "compare": False}), ScriptedChat(leak), {0: 3.0, 1: 2.0})
    assert new_texts(tmp_path) == ["Why do owls hunt at night?"]
    assert result.dropped == {
        "repeats a held-out prompt": 2,
        "too similar to a held-out prompt": 2,
        "is a training prompt": 1,
    }
    dropped = list(read_jsonl(tmp_path / "stage" / DROPPED, Dropped))
    held_out = {prompt_id(user(one)) for one in HELD_OUT}
    assert {one.nearest for one in dropped if "held-out" in one.reason} <= held_out
    assert prompts_in(tmp_path)[:-1] == all_prompts()


def test_a_round_without_new_prompts_does_not_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refusing = ScriptedChat(lambda messages, sample: "I'm sorry, but I can't help with that.")
    result = run(tmp_path / "refused", EVOLVE, refusing, {0: 3.0, 1: 2.0})
    assert (result.counts["new"], result.dropped) == (0, {"is a refusal": 2})
    assert prompts_in(tmp_path / "refused") == all_prompts()
    chat = CountedChat()
    assert run(tmp_path / "none", EVOLVE, chat, {}).counts["new"] == 0  # no prompt has a difficulty
    assert not chat.asked
    assert metrics_of(tmp_path / "none").stopped == "no training prompt of the round before has a difficulty"
    assert "weak ended with 0 new prompts" in capsys.readouterr().err


def test_another_round_asks_for_others(tmp_path: Path) -> None:
    """The same prompt is evolved again with another seed, so the server is asked again and may say something else."""
    first, second = CountedChat(), CountedChat()
    step = EVOLVE.model_copy(update={"operations": ("deepen",)})
    run(tmp_path / "two", step, first, {0: 3.0}, seed=1)
    run(tmp_path / "three", step, second, {0: 3.0}, seed=2)
    assert first.asked.total() == second.asked.total() > 0


def test_new_prompts_beside_the_others_of_the_round(tmp_path: Path) -> None:
    run(tmp_path, EVOLVE, CountedChat(), {0: 3.0, 1: 2.0})
    new = [one.id for one in prompts_in(tmp_path)[-2:]]
    old = [one.id for one in all_prompts()[:2]]
    write_jsonl(tmp_path / PROMPTS, [*all_prompts(), prompts_in(tmp_path)[-2]])  # a filter dropped the other one
    known = {old[0]: Difficulty(0.5, 1.0), old[1]: Difficulty(0.7, 3.0), new[0]: Difficulty(0.1, 8.0)}
    found = new_prompts(tmp_path, [tmp_path / "stage"], known)
    assert found.prompts == 1
    assert found.accept_rate is not None
    assert found.difficulty is not None
    assert (found.accept_rate.mean, found.difficulty.mean, found.difficulty.n) == (0.1, 8.0, 1)
    assert found.accept_rate_of_others is not None
    assert found.difficulty_of_others is not None
    assert (found.accept_rate_of_others.mean, found.difficulty_of_others.mean) == (pytest.approx(0.6), 2.0)
    assert new_prompts(tmp_path, [tmp_path / "stage"], {}).accept_rate is None
