from aligndistill.preferences.agreement import OrderBias, Share, longer_preferred_rate, order_bias, unparsed
from aligndistill.records import Comparison, Grade, Message, Outcome, Ranking, Response


def comparison(first: str, second: str, outcome: Outcome, prompt: str = "p", judge: str = "j") -> Comparison:
    return Comparison(prompt_id=prompt, first=first, second=second, probability_first=None, outcome=outcome, judge=judge)


def test_a_judge_that_always_takes_the_first_flips_every_pair() -> None:
    verdicts = [
        comparison("a", "b", "first"),
        comparison("b", "a", "first"),
        comparison("c", "a", "first"),
        comparison("a", "c", "first"),
    ]
    assert order_bias(verdicts) == OrderBias(flips=Share(2, 2), first_wins=Share(4, 4))


def test_a_consistent_judge_flips_none_and_first_wins_half() -> None:
    verdicts = [
        comparison("a", "b", "first"),
        comparison("b", "a", "second"),
        comparison("c", "a", "first"),
        comparison("a", "c", "second"),
    ]
    assert order_bias(verdicts) == OrderBias(flips=Share(0, 2), first_wins=Share(2, 4))


def test_always_the_second_flips_as_well() -> None:
    assert order_bias([comparison("b", "a", "second"), comparison("a", "b", "second")]) == OrderBias(Share(1, 1), Share(0, 2))


def test_ties_are_no_flips_and_no_decisions() -> None:
    assert order_bias([comparison("a", "b", "tie"), comparison("b", "a", "tie")]) == OrderBias(Share(0, 1), Share(0, 0))
    assert order_bias([comparison("a", "b", "tie"), comparison("b", "a", "first")]) == OrderBias(Share(0, 1), Share(1, 1))


def test_only_pairs_read_in_both_orders_by_one_judge_on_one_prompt_count() -> None:
    nothing = OrderBias(Share(0, 0), Share(0, 0))
    assert order_bias([comparison("a", "b", "first")]) == nothing
    assert order_bias([comparison("a", "b", "first"), comparison("b", "a", "unparsed")]) == nothing
    assert order_bias([comparison("a", "b", "first"), comparison("b", "a", "first", judge="k")]) == nothing
    assert order_bias([comparison("a", "b", "first"), comparison("b", "a", "first", prompt="q")]) == nothing
    assert nothing.flips.value is None


def test_the_sum_over_prompts_is_that_of_all() -> None:
    verdicts = [comparison(*pair, "first", prompt) for prompt in "pq" for pair in (("a", "b"), ("b", "a"), ("a", "c"))]
    assert order_bias(verdicts[:3]) + order_bias(verdicts[3:]) == order_bias(verdicts) == OrderBias(Share(2, 2), Share(4, 4))


def test_unparsed_counts_comparisons_and_grades() -> None:
    verdicts = [
        comparison("a", "b", "unparsed"),
        comparison("a", "b", "tie"),
        Grade(prompt_id="p", candidate="a", value=None, judge="j"),
        Grade(prompt_id="p", candidate="a", value=0.0, judge="j"),
        Grade(prompt_id="p", candidate="b", value=1.0, judge="j"),
    ]
    assert unparsed(verdicts) == Share(2, 5)
    assert unparsed(verdicts).value == 2 / 5
    assert unparsed([]).value is None


def test_longer_wins_looks_at_ordered_pairs_of_different_length() -> None:
    responses = [("longest answer", 3.0), ("short", 2.0), ("as long as", 1.0), ("tied to it", 1.0)]
    ranking = Ranking(
        prompt_id="p",
        split="train",
        messages=(Message(role="user", content="?"),),
        responses=tuple(Response(text=text, score=score, candidate_id=text) for text, score in responses),
    )
    # longest > short, twice longest > ten characters: 3 of 3; short > two of ten characters: 0 of 2; the last two are tied.
    assert longer_preferred_rate([ranking]) == Share(3, 5)
    assert longer_preferred_rate([ranking, ranking]) == Share(6, 10)
