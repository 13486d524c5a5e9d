import zlib

import pytest

from aligndistill.chat.protocol import Reply
from aligndistill.config.elicitation import Expand
from aligndistill.data.overlap import rouge_l
from aligndistill.elicitation.asking import AuthorRequest
from aligndistill.elicitation.collecting import Collected, Proposal
from aligndistill.elicitation.figures import diversity, fertile_share, samples, step_figures
from aligndistill.records import Lineage, Message, Prompt, Usage
from tests.elicitation.prompts import TRAIN, all_prompts, prompt

STEP = Expand(name="more", kind="expand", target=10)
ASKED = (AuthorRequest("teacher", ()), Reply("", "stop", Usage()))


def child(text: str, root: str, operation: str = "expand") -> Prompt:
    lineage = Lineage(root=root, parent=root, operation=operation, author="teacher")
    return prompt(text).model_copy(update={"lineage": lineage})


def test_diversity_by_hand() -> None:
    texts = ["a b c d", "a b c e", "f g h i"]
    found = diversity(texts)
    assert found is not None
    assert found["prompts"] == 3
    assert found["distinct_1"] == pytest.approx(9 / 12)
    assert found["distinct_2"] == pytest.approx(7 / 9)
    # The nearest of the first two is the other one, with three of four words in common; the third has nothing in common.
    assert found["nearest_mean"] == pytest.approx((0.75 + 0.75 + 0) / 3)
    assert found["nearest_p10"] == 0.0
    assert found["compression"] == pytest.approx(23 / len(zlib.compress(b"a b c d\na b c e\nf g h i", 9)))


def test_copies_have_no_diversity() -> None:
    found = diversity(["one text about rivers"] * 20)
    assert found is not None
    assert (found["nearest_mean"], found["nearest_p10"]) == (1.0, 1.0)
    assert found["distinct_1"] == pytest.approx(4 / 80)
    assert found["compression"] > 5
    assert diversity(["one"]) is None


def test_the_ten_most_fertile_roots() -> None:
    new = [child(f"child {root} {number}", root=str(root)) for root in range(12) for number in range(root + 1)]
    assert fertile_share(new) == pytest.approx(sum(range(3, 13)) / sum(range(1, 13)))
    assert fertile_share([child("a", root=prompt("a").id)]) is None  # its own root


def test_samples_of_each_operation_with_their_parents() -> None:
    parent = prompt("an old one")
    new = [child(f"{operation} {n}", parent.id, operation) for operation in ("deepen", "breadth") for n in range(5)]
    found = samples([parent], new)
    assert [one["operation"] for one in found] == ["breadth"] * 3 + ["deepen"] * 3
    assert {one["parent"] for one in found} == {"an old one"}
    assert all(str(one["text"]).startswith(str(one["operation"])) for one in found)


def test_figures_of_a_step() -> None:
    before = all_prompts()
    collected = Collected(STEP, before, unlike_training=False)
    root = prompt(TRAIN[0]).id
    collected.offer(Proposal("Explain how a compass finds water", "expand", *ASKED, root=root, parent=root))
    collected.offer(Proposal("zebra yak xylophone", "curate", *ASKED, category="letters"))
    found = step_figures(before, collected)
    nearest = [max(rouge_l(one.messages[-1].content, text) for text in TRAIN) for one in collected.kept]
    assert found["novelty"] == pytest.approx(1 - sum(nearest) / 2)
    assert found["categories"] == {"expand": 0.5, "letters": 0.5}
    assert found["diversity"]["prompts"] == found["diversity_before"]["prompts"] == 2  # as many of both
    assert found["fertile"] == 1.0
    assert step_figures(before, Collected(STEP, before, unlike_training=False)) == {}


def test_the_parent_is_shown_as_the_model_saw_it() -> None:
    turns = [
        Message(role="user", content="How do I keep bees?"),
        Message(role="assistant", content="In a hive."),
        Message(role="user", content="And in winter?"),
    ]
    parent = prompt(turns)
    found = samples([parent], [child("a", parent.id, "expand"), child("b", parent.id, "deepen")])
    assert [one["parent"] for one in found] == ["And in winter?", "How do I keep bees?"]
