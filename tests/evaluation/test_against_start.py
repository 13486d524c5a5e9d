from aligndistill.evaluation.against_start import AgainstStart, ScoredText, against_start


def test_by_hand() -> None:
    start = [ScoredText("a", 10, truth=1.0, reward=0.0), ScoredText("b", 10, truth=0.0, reward=1.0), ScoredText("c", 10, truth=0.5)]
    start += [ScoredText("c", 10, truth=0.5)]
    student = [
        ScoredText("a", 14, truth=0.0, reward=2.0, win=0.3),  # truth -1, reward +2
        ScoredText("b", 12, truth=1.0, reward=1.0, win=0.9),  # truth +1, reward 0
        ScoredText("c", 13, truth=0.5, win=0.5),  # truth 0
        ScoredText("c", 11, truth=0.5, win=None),  # a second sample of c, not readable
        ScoredText("c", 12, truth=0.5),  # a third sample of c: the start has two, so there is no comparison
        ScoredText("d", 99, truth=0.0),  # the start has no answer
    ]
    found = against_start(student, start, judged=True)
    assert (found.wins, found.ties, found.losses, found.unreadable, found.compared) == (1, 1, 1, 1, 3)
    assert found.worse is not None
    assert (found.worse.mean, found.worse.n) == (1 / 3, 3)
    assert found.truth is not None
    assert (found.truth.mean, found.truth.n) == (0.0, 3)
    assert found.reward is not None
    assert (found.reward.mean, found.reward.n) == (1.0, 2)
    assert found.length_tokens is not None
    assert found.length_tokens.mean == (4 + 2 + 2) / 3


def test_without_truth_the_judge_says_where_it_is_worse() -> None:
    start = [ScoredText(name, 1) for name in "abcd"]
    student = [ScoredText(name, 1, win=win) for name, win in zip("abcd", (0.4, 0.5, 0.6, None), strict=True)]
    found = against_start(student, start, judged=True)
    assert found.worse is not None
    assert (found.worse.mean, found.worse.n) == (1 / 3, 3)
    assert found.truth is None


def test_where_no_judge_was_asked_no_verdict_is_missing() -> None:
    assert against_start([ScoredText("a", 1)], [], judged=False) == AgainstStart()
