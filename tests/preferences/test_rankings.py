import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligndistill.config.run import Rankings
from aligndistill.errors import ConfigError, DataError
from aligndistill.preferences.rankings import RankingOutcome, rank_ready_made, rank_responses
from aligndistill.records import Candidate, Comparison, Grade, Message, Prompt, Ranking, Response

MESSAGES = (Message(role="user", content="hello?"),)
PROMPT = Prompt(id="p", messages=MESSAGES, source="test", split="train")


def candidates(*ids: str) -> list[Candidate]:
    return [Candidate(id=name, prompt_id="p", text=f"text of {name}", author="start", finish="length") for name in ids]


def grades(**values: float | None) -> list[Grade]:
    return [Grade(prompt_id="p", candidate=name, value=value, judge="j") for name, value in values.items()]


def ready_made(scores: Sequence[float]) -> Ranking:
    responses = tuple(Response(text=str(number), score=score, candidate_id=f"c{number:03d}") for number, score in enumerate(scores))
    return Ranking(prompt_id="p", split="held_out", messages=MESSAGES, responses=responses)


def scored(outcome: RankingOutcome) -> list[tuple[str, float]]:
    assert outcome.ranking is not None
    return [(response.candidate_id, response.score) for response in outcome.ranking.responses]


def test_grades_make_a_ranking_best_first_with_all_that_a_candidate_brought() -> None:
    outcome = rank_responses(PROMPT, candidates("a", "b", "c"), grades(a=2.0, b=6.0, c=4.0), Rankings(temperature=2.0))
    assert scored(outcome) == [("b", 3.0), ("c", 2.0), ("a", 1.0)]
    assert outcome.ranking is not None
    assert (outcome.ranking.prompt_id, outcome.ranking.split, outcome.ranking.messages) == ("p", "train", MESSAGES)
    assert outcome.ranking.responses[0] == Response(text="text of b", score=3.0, candidate_id="b", author="start", finish="length")
    assert (outcome.dropped, outcome.no_verdict) == (None, 0)


@pytest.mark.parametrize("aggregate", ["auto", "bradley_terry", "win_probability"])
def test_comparisons_make_a_ranking(aggregate: str) -> None:
    verdicts = [
        Comparison(prompt_id="p", first=first, second=second, probability_first=p, outcome="first", judge="j")
        for first, second, p in [("b", "a", 0.9), ("b", "c", 0.8), ("a", "c", 0.7)]
    ]
    outcome = rank_responses(PROMPT, candidates("a", "b", "c"), verdicts, Rankings.model_validate({"aggregate": aggregate}))
    assert [name for name, _ in scored(outcome)] == ["b", "a", "c"]


def test_an_answer_without_a_readable_verdict_is_dropped_and_counted() -> None:
    outcome = rank_responses(PROMPT, candidates("a", "b", "c", "d"), grades(a=1.0, b=None, c=3.0), Rankings())
    assert scored(outcome) == [("c", 3.0), ("a", 1.0)]
    assert outcome.no_verdict == 2


def test_a_prompt_with_fewer_than_two_answers_is_dropped() -> None:
    assert rank_responses(PROMPT, candidates("a", "b"), grades(a=1.0, b=None), Rankings()) == RankingOutcome(
        None, "fewer than two answers", no_verdict=1
    )
    assert rank_responses(PROMPT, candidates("a", "b"), [], Rankings()) == RankingOutcome(
        None, "fewer than two answers", no_verdict=2
    )
    assert rank_responses(PROMPT, [], [], Rankings()) == RankingOutcome(None, "fewer than two answers", no_verdict=0)


def test_a_prompt_whose_answers_are_all_tied_is_dropped() -> None:
    assert rank_responses(PROMPT, candidates("a", "b"), grades(a=1.0, b=1.0), Rankings()).dropped == "all tied"
    assert rank_responses(PROMPT, candidates("a", "b"), grades(a=1.0, b=1.4), Rankings(tie_margin=0.5)).dropped == "all tied"
    assert rank_responses(PROMPT, candidates("a", "b"), grades(a=1.0, b=1.4), Rankings(tie_margin=0.4 - 1e-6)).dropped is None


def test_a_ranking_that_is_all_tied_is_kept_for_soft_labels() -> None:
    tied = rank_responses(PROMPT, candidates("a", "b"), grades(a=1.0, b=1.4), Rankings(tie_margin=0.5)).tied
    assert tied is not None
    assert [(one.text, one.score) for one in tied.responses] == [("text of a", 1.4), ("text of b", 1.4)]
    assert rank_responses(PROMPT, candidates("a"), grades(a=1.0), Rankings()).tied is None
    assert rank_responses(PROMPT, candidates("a", "b"), grades(a=1.0, b=2.0), Rankings()).tied is None


def test_differences_that_are_only_rounding_are_ties() -> None:
    third = 0.1 + 0.2  # 0.30000000000000004
    assert rank_responses(PROMPT, candidates("a", "b"), grades(a=0.3, b=third), Rankings()).dropped == "all tied"


def test_the_margin_groups_from_the_best_and_gives_the_leaders_score() -> None:
    # 4.0 leads 3.7 and 3.5; 3.2 is 0.3 from 3.5 but 0.8 from the leader, so it leads the next group, with 2.8.
    outcome = rank_ready_made(ready_made([3.5, 2.8, 4.0, 3.2, 3.7]), Rankings(tie_margin=0.6))
    assert scored(outcome) == [("c000", 4.0), ("c002", 4.0), ("c004", 4.0), ("c001", 3.2), ("c003", 3.2)]


def test_exactly_the_margin_apart_is_apart() -> None:
    assert scored(rank_ready_made(ready_made([1.0, 0.5]), Rankings(tie_margin=0.5))) == [("c000", 1.0), ("c001", 0.5)]


def test_equal_scores_stand_in_the_order_of_their_ids_whatever_order_they_came_in() -> None:
    verdicts = grades(d=1.0, a=2.0, c=1.0, b=1.0)
    forwards = rank_responses(PROMPT, candidates("a", "b", "c", "d"), verdicts, Rankings())
    backwards = rank_responses(PROMPT, candidates("d", "c", "b", "a"), verdicts[::-1], Rankings())
    assert forwards == backwards
    assert [name for name, _ in scored(forwards)] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("aggregate", ["bradley_terry", "win_probability"])
def test_grades_cannot_be_put_together_as_comparisons(aggregate: str) -> None:
    settings = Rankings.model_validate({"aggregate": aggregate})
    with pytest.raises(ConfigError, match=rf"rankings\.aggregate is '{aggregate}'.*auto or mean_grade"):
        rank_responses(PROMPT, candidates("a", "b"), grades(a=1.0, b=2.0), settings)


def test_comparisons_cannot_be_put_together_as_grades() -> None:
    verdict = Comparison(prompt_id="p", first="a", second="b", probability_first=None, outcome="first", judge="j")
    with pytest.raises(ConfigError, match=r"rankings\.aggregate is 'mean_grade'.*bradley_terry"):
        rank_responses(PROMPT, candidates("a", "b"), [verdict], Rankings(aggregate="mean_grade"))


def test_a_ready_made_ranking_is_ordered_scaled_and_kept_whole() -> None:
    outcome = rank_ready_made(ready_made([1.0, 3.0]), Rankings(temperature=0.5))
    assert scored(outcome) == [("c001", 6.0), ("c000", 2.0)]
    assert outcome.ranking is not None
    assert (outcome.ranking.split, outcome.ranking.responses[0].text) == ("held_out", "1")


def test_probabilities_of_beating_one_opponent_become_log_odds() -> None:
    """Two answers that beat it 3 to 1 and 1 to 1 meet as 3 to 1, by Bradley-Terry."""
    outcome = rank_ready_made(ready_made([0.5, 0.75]), Rankings(scores="probabilities"))
    assert scored(outcome) == [("c001", pytest.approx(math.log(3))), ("c000", 0.0)]
    halved = rank_ready_made(ready_made([0.5, 0.75]), Rankings(scores="probabilities", temperature=2.0))
    assert scored(halved) == [("c001", pytest.approx(math.log(3) / 2)), ("c000", 0.0)]
    ends = rank_ready_made(ready_made([1.0, 1e-7, 0.0, 1 - 1e-7]), Rankings(scores="probabilities"))
    most = math.log(1e6 - 1)
    assert [score for _, score in scored(ends)] == pytest.approx([most, most, -most, -most])


@pytest.mark.parametrize("score", [-0.1, 1.5])
def test_a_score_that_is_no_probability(score: float) -> None:
    with pytest.raises(DataError, match=rf"rankings\.source has the score {score}\. Set rankings\.scores to logits"):
        rank_ready_made(ready_made([0.5, score]), Rankings(scores="probabilities"))


def test_a_ready_made_ranking_is_dropped_by_the_same_rules() -> None:
    assert rank_ready_made(ready_made([1.0]), Rankings()).dropped == "fewer than two answers"
    assert rank_ready_made(ready_made([1.0, 1.0, 1.0]), Rankings()).dropped == "all tied"
    assert rank_ready_made(ready_made([1.0, math.nan]), Rankings()) == RankingOutcome(None, "fewer than two answers", no_verdict=1)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8), st.floats(0, 2))
def test_different_scores_are_at_least_the_margin_apart_and_ranking_again_changes_nothing(
    scores: list[float], margin: float
) -> None:
    settings = Rankings(tie_margin=margin)
    outcome = rank_ready_made(ready_made(scores), settings)
    if outcome.ranking is None:
        assert max(scores) - min(scores) < max(margin, 1e-9)
        return
    found = [response.score for response in outcome.ranking.responses]
    assert len(found) == len(scores)
    assert found == sorted(found, reverse=True)
    assert all(better == worse or better - worse >= margin for better, worse in pairwise(found))
    assert rank_ready_made(outcome.ranking, settings) == outcome
    for response in outcome.ranking.responses:  # a tie only ever lifts a score, and by less than the margin
        assert 0 <= response.score - scores[int(response.text)] < max(margin, 1e-9)
