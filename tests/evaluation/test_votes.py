"""Votes against verdicts, with numbers worked out by hand."""

import pytest

from aligndistill.evaluation.votes import Vote, VotedAnswer, standing, vote_metrics

A, B = "a" * 16, "b" * 16


def vote(
    number: int, choice: str, prompt: int = 0, left: str = A, right: str = B, queue: str = "random", named: bool = False
) -> Vote:
    return Vote(
        id=f"{number:032x}",
        time=float(number),
        prompt=f"{prompt:016x}",
        left=left,
        right=right,
        vote=choice,
        queue=queue,
        milliseconds=1,
        named=named,
    )


def pairs(count: int, value):  # type: ignore[no-untyped-def]
    return {(f"{prompt:016x}", A, B): value(prompt) for prompt in range(count)}


def answers(*pairs_of_answers: tuple[VotedAnswer, VotedAnswer]) -> dict[tuple[str, str], VotedAnswer]:
    """A and B of each prompt."""
    return {
        (f"{prompt:016x}", key): one for prompt, both in enumerate(pairs_of_answers) for key, one in zip((A, B), both, strict=True)
    }


def test_a_vote_means_the_same_on_either_side() -> None:
    assert vote(1, "left").preferred == vote(1, "right", left=B, right=A).preferred == 1.0
    assert vote(1, "right").preferred == vote(1, "left", left=B, right=A).preferred == 0.0
    assert vote(1, "tie").preferred == vote(1, "both_bad").preferred == 0.5
    assert vote(1, "skip").preferred is None
    assert vote(1, "left").pair == vote(1, "left", left=B, right=A).pair


def test_what_was_undone_or_sent_twice_does_not_stand() -> None:
    given = [vote(1, "left"), vote(1, "right"), vote(2, "tie", prompt=1), vote(3, "undo", prompt=1), vote(4, "right", prompt=2)]
    assert [(one.vote, int(one.prompt, 16)) for one in standing(given)] == [("left", 0), ("right", 2)]
    again = [*given, vote(5, "left", prompt=1), vote(6, "right", queue="repeat", left=B, right=A)]
    assert [(one.vote, int(one.prompt, 16)) for one in standing(again)] == [("left", 0), ("right", 2), ("left", 1), ("right", 0)]


def test_agreement_kappa_and_the_longer_answer() -> None:
    votes = [vote(n, choice, prompt=n) for n, choice in enumerate(["left", "left", "right", "right", "tie"])]
    judged = pairs(5, lambda n: [0.9, 0.2, 0.1, 0.5, 0.9][n])  # agrees, disagrees, agrees, ties; the person's tie does not count
    long, short = VotedAnswer(9, ["dpo"]), VotedAnswer(6, ["start"])
    metrics = vote_metrics({"ann": votes}, judged, answers(*([(long, short)] * 3), (short, long), (long, short)))
    assert metrics.agreement is not None
    assert (metrics.agreement.mean, metrics.agreement.n) == (pytest.approx(2.5 / 4), 4)
    # 2 of 4 agree; by chance (1 - 1/4) / 2 = 3/8 would
    assert metrics.kappa is not None
    assert metrics.kappa.mean == pytest.approx((2 / 4 - 3 / 8) / (1 - 3 / 8))
    assert metrics.longer is not None
    assert metrics.longer.mean == pytest.approx(3 / 4)  # A is longer in 0, 1, 2; chosen in 0 and 1; in 3 the longer B is chosen
    assert (metrics.votes, metrics.headline, metrics.more_votes) == (5, 5, 380)
    assert metrics.left is not None
    assert metrics.left.mean == 0.5


def test_the_headline_is_random_and_blind() -> None:
    votes = [
        vote(0, "left"),
        vote(1, "left", prompt=1, queue="filter"),
        vote(2, "left", prompt=2, named=True),
        vote(3, "skip", prompt=3),
    ]
    metrics = vote_metrics({"ann": votes}, pairs(4, lambda n: 0.9 if n != 1 else 0.1), {})
    assert (metrics.votes, metrics.headline) == (3, 1)
    assert metrics.agreement is not None
    assert metrics.agreement.mean == 1.0
    assert metrics.filtered is not None
    assert metrics.filtered.mean == 0.0


def test_a_person_with_themselves_and_with_another() -> None:
    ann = [vote(n, "left", prompt=n) for n in range(4)]
    ann += [
        vote(10 + n, choice, prompt=n, left=B, right=A, queue="repeat")
        for n, choice in enumerate(["right", "right", "left", "tie"])
    ]
    bob = [vote(20 + n, choice, prompt=n) for n, choice in enumerate(["left", "right"])]
    metrics = vote_metrics({"ann": ann, "bob": bob}, {}, {})
    assert metrics.self_agreement is not None
    assert metrics.self_agreement.mean == 0.5
    assert metrics.human_agreement is not None
    assert metrics.human_agreement.mean == 0.5
    assert metrics.agreement is None


def test_win_rates_by_people_and_agreement_by_model() -> None:
    votes = [vote(0, "left"), vote(1, "right", prompt=1), vote(2, "tie", prompt=2)]
    start, dpo, both = VotedAnswer(1, ["start", "teacher"]), VotedAnswer(1, ["dpo"]), VotedAnswer(1, ["dpo", "ppo"])
    metrics = vote_metrics({"ann": votes}, pairs(3, lambda n: 0.9), answers((dpo, start), (both, start), (start, dpo)))
    assert metrics.win_rates["dpo"].mean == pytest.approx((1 + 0 + 0.5) / 3)
    assert metrics.win_rates["ppo"].mean == 0.0
    assert metrics.by_model["dpo"].mean == 0.5
    assert metrics.by_model["ppo"].mean == 0.0


def test_of_a_pair_with_an_unknown_answer_no_model_and_no_length_counts() -> None:
    known = {(f"{0:016x}", A): VotedAnswer(9, ["dpo"])}
    metrics = vote_metrics({"ann": [vote(0, "left")]}, pairs(1, lambda n: 0.9), known)
    assert metrics.agreement is not None
    assert metrics.longer is None
    assert metrics.win_rates == {}


def test_without_votes_nothing_is_measured() -> None:
    metrics = vote_metrics({}, {}, {})
    assert (metrics.votes, metrics.agreement, metrics.more_votes) == (0, None, 385)
