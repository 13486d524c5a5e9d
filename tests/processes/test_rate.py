import pytest

from aligndistill.processes.rate import Rate


def test_the_rate_is_that_of_the_last_minute_and_of_what_is_new() -> None:
    rate = Rate(now=100.0, done=50)
    for second in range(2, 122, 2):  # one item every two seconds, so none is one of a batch
        rate.count(50 + second // 2, 100.0 + second)
    assert rate.per_second == pytest.approx(0.5)
    assert rate.left_seconds(30, now=220.0) == pytest.approx(60.0)


def test_too_little_is_known_at_the_start() -> None:
    rate = Rate(now=0.0)
    assert rate.left_seconds(10, now=60.0) is None
    rate.count(1, now=2.0)
    assert rate.per_second == 0.0
    rate.count(2, now=4.0)
    assert rate.per_second == pytest.approx(0.5)
    assert rate.left_seconds(10, now=4.0) is None
    assert rate.left_seconds(10, now=5.0) == pytest.approx(20.0)
    assert rate.left_seconds(-1, now=5.0) == 0.0


def test_of_the_first_item_of_a_batch_the_rate_is_that_of_the_batch_before() -> None:
    """Batches of 4 every 10 s."""
    rate = Rate(now=0.0)
    known = [rate.count(4 * batch + item, 10.0 * (batch + 1) + 0.01 * item) for batch in range(3) for item in range(1, 5)]
    assert known[:5] == [1, 2, 3, 4, 4]
    assert known[8] == 8
    assert rate.per_second == pytest.approx(12 / 30.04)
