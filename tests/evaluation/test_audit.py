"""The audit's metrics, on verdicts of judges with known biases, and by hand."""

import random
from collections.abc import Callable, Sequence

import pytest
from scipy.stats import binomtest

from aligndistill.evaluation.audit import AuditMetrics, Evidence, audit
from aligndistill.evaluation.intervals import wilson
from aligndistill.evaluation.limits import exceeded
from aligndistill.records import Canary, Candidate, Comparison, Grade, Outcome, Verdict

Decide = Callable[[str, str], Outcome]


def candidates(prompts: int, texts: Sequence[str] = ("a", "bb", "ccc", "dddd"), authors: Sequence[str] = ()) -> list[Candidate]:
    names = authors or ["start"] * len(texts)
    return [
        Candidate(id=f"{prompt}-{text}", prompt_id=str(prompt), text=text, author=author)
        for prompt in range(prompts)
        for text, author in zip(texts, names, strict=True)
    ]


def compared(some: Sequence[Candidate], decide: Decide, both_orders: bool = True, judge: str = "j") -> list[Verdict]:
    return [
        Comparison(
            prompt_id=one.prompt_id,
            first=one.id,
            second=other.id,
            probability_first=None,
            outcome=decide(one.text, other.text),
            judge=judge,
        )
        for one in some
        for other in some
        if one.prompt_id == other.prompt_id and (one.id != other.id if both_orders else one.id < other.id)
    ]


def longer(first: str, second: str) -> Outcome:
    return "first" if len(first) > len(second) else "second"


def audited(decide: Decide, prompts: int = 30, both_orders: bool = True) -> AuditMetrics:
    some = candidates(prompts)
    return audit(Evidence(compared(some, decide, both_orders), some))


def test_a_judge_that_always_takes_the_first() -> None:
    metrics = audited(lambda first, second: "first")
    assert metrics.order_flips is not None
    assert metrics.order_flips.mean == 1
    assert metrics.first_position is not None
    assert metrics.first_position.low == 1
    assert metrics.longer_wins is None  # with both orders put together, it decides nothing
    assert (metrics.verdicts, metrics.prompts) == (360, 30)


def test_a_judge_that_always_takes_the_longer() -> None:
    metrics = audited(longer)
    assert metrics.longer_wins is not None
    assert metrics.longer_wins.low == 1
    assert metrics.order_flips is not None
    assert metrics.order_flips.mean == 0
    assert metrics.first_position is not None
    assert metrics.first_position.mean == 0.5
    assert metrics.intransitive is not None
    assert metrics.intransitive.mean == 0
    chance = metrics.longer_wins_by_chance
    assert chance is not None
    assert chance.low < 0.5 < chance.high < 0.7


def test_garbage_is_counted_and_decides_nothing() -> None:
    generator = random.Random(0)
    metrics = audited(lambda a, b: "unparsed" if generator.random() < 0.2 else longer(a, b))
    assert metrics.unparsed is not None
    assert metrics.unparsed.mean == pytest.approx(0.2, abs=0.06)
    assert metrics.longer_wins is not None
    assert metrics.longer_wins.mean == 1


def test_chance_for_the_longer_answer_is_the_binomials_for_single_pairs() -> None:
    """One pair for each of 100 prompts, dealt out at random: heads and tails."""
    some = candidates(100, ("a", "bb"))
    metrics = audit(Evidence(compared(some, longer, both_orders=False), some))
    chance = metrics.longer_wins_by_chance
    assert chance is not None
    assert chance.mean == pytest.approx(0.5, abs=0.01)
    assert (chance.low, chance.high) == (pytest.approx(0.40, abs=0.021), pytest.approx(0.60, abs=0.021))


def test_choices_in_a_circle() -> None:
    beats = {("a", "bb"), ("bb", "ccc"), ("ccc", "a")}
    some = candidates(4, ("a", "bb", "ccc"))
    metrics = audit(Evidence(compared(some, lambda a, b: "first" if (a, b) in beats else "second"), some))
    assert metrics.intransitive is not None
    assert metrics.intransitive.mean == 1


def test_grades_have_lengths_and_order_but_no_places() -> None:
    some = candidates(10)
    grades = [Grade(prompt_id=one.prompt_id, candidate=one.id, value=-len(one.text), judge="j") for one in some]
    metrics = audit(Evidence(grades, some, repeats=[*grades[:3], grades[3].model_copy(update={"value": 0.0})]))
    assert metrics.longer_wins is not None
    assert metrics.longer_wins.mean == 0
    assert metrics.order_flips is metrics.first_position is metrics.intransitive is None
    # The fourth, last before, is graded best the second time: three of the six pairs are turned round.
    assert metrics.self_consistency is not None
    assert metrics.self_consistency.mean == 0.5


def test_the_same_question_twice() -> None:
    some = candidates(2, ("a", "bb"))
    first = compared(some, longer)
    again = [first[0], first[1].model_copy(update={"outcome": "tie"}), first[2].model_copy(update={"outcome": "unparsed"})]
    metrics = audit(Evidence(first, some, repeats=again))
    assert metrics.self_consistency is not None
    assert metrics.self_consistency.mean == 0.5


def test_its_own_answers() -> None:
    """The judge takes its own answer in either position; by the labels it is better on every second prompt."""
    some = candidates(20, ("mine", "yours", "theirs"), ("teacher", "start", "start"))
    verdicts = compared(some, lambda a, b: "first" if a == "mine" else "second" if b == "mine" else "tie")
    labels = {
        str(n): {(f"{n}-mine", f"{n}-yours"): n % 2, (f"{n}-mine", f"{n}-theirs"): n % 2, (f"{n}-theirs", f"{n}-yours"): 0.5}
        for n in range(20)
    }
    metrics = audit(Evidence(verdicts, some, labels=labels, own_author="teacher"))
    assert metrics.own_answers_win is not None
    assert metrics.own_answers_win.mean == 1
    assert metrics.own_answers_win_by_labels is not None
    assert metrics.own_answers_win_by_labels.mean == 0.5
    assert metrics.labels is not None
    assert metrics.labels.agreement.mean == 0.5
    assert audit(Evidence(verdicts, some)).own_answers_win is None


def test_agreement_and_kappa_by_hand() -> None:
    """Ten pairs that the labels decide: six alike, two against, two that the judge calls ties; one label is a tie (not counted)."""
    some = candidates(11, ("a", "bb"))
    outcome: list[Outcome] = [*["second"] * 6, *["first"] * 2, *["tie"] * 2, "first"]
    verdicts = [
        Comparison(prompt_id=str(n), first=f"{n}-a", second=f"{n}-bb", probability_first=None, outcome=outcome[n], judge="j")
        for n in range(11)
    ]
    labels = {str(n): {(f"{n}-a", f"{n}-bb"): 0.5 if n == 10 else 0.25 if n == 9 else 0.0} for n in range(11)}
    found = audit(Evidence(verdicts, some, labels=labels)).labels
    assert found is not None
    assert found.agreement.mean == pytest.approx(0.7)  # 6 + 2 / 2 of 10
    assert found.kappa.mean == pytest.approx((0.6 - 0.4) / (1 - 0.4))  # by chance half of the eight decided ones
    assert found.longer_wins is not None
    assert found.longer_wins.mean == 1


def test_a_coin_has_no_kappa_and_a_copy_has_one() -> None:
    generator = random.Random(1)
    some = candidates(300, ("a", "bb"))
    scores = {one.id: generator.random() for one in some}
    labels = {str(n): {(f"{n}-a", f"{n}-bb"): float(scores[f"{n}-a"] > scores[f"{n}-bb"])} for n in range(300)}
    coin = audit(Evidence(compared(some, lambda a, b: generator.choice(["first", "second"]), False), some, labels=labels)).labels
    assert coin is not None
    assert coin.kappa.low < 0 < coin.kappa.high
    copies = [Grade(prompt_id=one.prompt_id, candidate=one.id, value=scores[one.id], judge="j") for one in some]
    copied = audit(Evidence(copies, some, labels=labels)).labels
    assert copied is not None
    assert (copied.agreement.mean, copied.kappa.mean) == (1, 1)


def test_judges_of_a_panel() -> None:
    some = candidates(5, ("a", "bb", "ccc"))
    same = [*compared(some, longer, judge="x"), *compared(some, longer, judge="y")]
    other = compared(some, lambda a, b: longer(b, a), judge="z")
    agreement = audit(Evidence(same, some)).panel_agreement
    assert agreement is not None
    assert agreement.mean == 1
    agreement = audit(Evidence([*same, *other], some)).panel_agreement
    assert agreement is not None
    assert agreement.mean == pytest.approx(1 / 3)
    assert audited(longer).panel_agreement is None


def canary(kind: str, bad_value: float | None, good_value: float = 0.5) -> Canary:
    bad, good = (Candidate(id=name, prompt_id="p", text=name, author="x") for name in ("bad", "good"))
    grades = [
        Grade(prompt_id=f"canary-{kind}", candidate=one.id, value=value, judge="j")
        for one, value in ((bad, bad_value), (good, good_value))
    ]
    return Canary.model_validate({"prompt_id": "p", "kind": kind, "bad": bad, "reference": good, "verdicts": grades})


def test_canaries_that_win_tie_and_lose() -> None:
    birds = [canary("empty", 1.0), canary("empty", 0.5), canary("echo", 0.0), canary("echo", None)]
    metrics = audit(Evidence([], [], canaries=birds))
    assert metrics.canaries == wilson(1.5, 3)
    assert metrics.canaries_by_kind == {"empty": wilson(1.5, 2), "echo": wilson(0, 1)}
    assert exceeded(metrics, {"canaries": 0.5}) == []


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (3, 20), (20, 20), (57, 100)])
def test_wilsons_interval_is_scipys(successes: int, n: int) -> None:
    theirs = binomtest(successes, n).proportion_ci(method="wilson")
    ours = wilson(successes, n)
    assert (ours.low, ours.high) == (pytest.approx(theirs.low), pytest.approx(theirs.high))
    assert ours.mean == successes / n


LIMITS = {"unparsed": 0.05, "order_flips": 0.3, "first_position": 0.6, "longer_wins": 0.7, "canaries": 0.1}


@pytest.mark.parametrize(
    ("decide", "found"),
    [
        (lambda a, b: "first", ["have another winner", "shown first"]),
        (lambda a, b: "second", ["have another winner", "shown second"]),
        (longer, ["longer answer"]),
    ],
)
def test_planted_biases_are_found(decide: Decide, found: list[str]) -> None:
    sentences = exceeded(audited(decide, prompts=100), LIMITS)
    assert len(sentences) == len(found)
    assert all(words in sentence for words, sentence in zip(found, sentences, strict=True))


def test_an_honest_judge_and_few_verdicts_give_no_warning() -> None:
    generator = random.Random(2)
    worth = {text: generator.random() for text in ("a", "bb", "ccc", "dddd")}
    worth |= {"a": 0.9, "dddd": 0.1, "bb": 0.2, "ccc": 0.95}
    honest = audited(lambda a, b: "first" if worth[a] > worth[b] else "second", prompts=100)
    assert exceeded(honest, LIMITS) == []
    assert exceeded(audit(Evidence([], [], canaries=[canary("echo", 1.0)])), {"canaries": 0.5}) == []
    assert exceeded(audited(longer), dict.fromkeys(LIMITS)) == []


def test_agreement_with_a_second_judge_is_over_the_pairs_that_it_decides() -> None:
    """By hand: two pairs agree, one does not, a tie counts half; what the second judge ties or leaves out does not count."""

    def said(prompt: int, outcome: Outcome, judge: str) -> Comparison:
        pair = {"first": f"{prompt}-a", "second": f"{prompt}-bb"}
        return Comparison(prompt_id=str(prompt), probability_first=None, outcome=outcome, judge=judge, **pair)

    some = candidates(6, ("a", "bb"))
    ours = [said(n, outcome, "j") for n, outcome in enumerate(("first", "second", "first", "tie", "first", "second"))]
    other = [said(n, outcome, "s") for n, outcome in enumerate(("first", "second", "second", "first", "tie"))]
    metrics = audit(Evidence(ours, some, second=other))
    assert metrics.second_agreement is not None
    assert metrics.second_agreement == wilson(1 + 1 + 0 + 1 / 2, 4)
    assert metrics.verdicts == 6  # the second judge's are no verdicts of this one
    assert metrics.panel_agreement is None
    assert audit(Evidence(ours, some)).second_agreement is None
    grades = [Grade(prompt_id="2", candidate=f"2-{text}", value=value, judge="s") for text, value in (("a", 9.0), ("bb", 1.0))]
    graded = audit(Evidence(ours, some, second=grades)).second_agreement
    assert graded is not None
    assert (graded.mean, graded.n) == (1.0, 1)


def test_a_second_judge_that_decides_otherwise_exceeds_the_limit_with_its_whole_interval() -> None:
    some = candidates(40, ("a", "bb"))
    shorter = compared(some, lambda first, second: "first" if len(first) < len(second) else "second", judge="s")
    metrics = audit(Evidence(compared(some, longer), some, second=shorter))
    said = "100% [91% to 100%] of the pairs are decided otherwise by the second judge (limit second_disagreement: 0.4)"
    assert exceeded(metrics, {"second_disagreement": 0.4}) == [said]
    assert exceeded(metrics, {"second_disagreement": None}) == []
    assert exceeded(audit(Evidence(shorter, some, second=shorter)), {"second_disagreement": 0.4}) == []
