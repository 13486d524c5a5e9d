import random
from pathlib import Path

import pytest

from aligndistill.chat.protocol import Reply
from aligndistill.config.elicitation import Curate
from aligndistill.elicitation import rules
from aligndistill.elicitation.curation import Topic, curate, quotas, read_personas, read_topics
from aligndistill.errors import DataError
from aligndistill.records import Usage
from tests.elicitation.prompts import HELD_OUT, TRAIN, all_prompts
from tests.elicitation.scripted_teacher import ScriptedAsk, numbered, prompt_about, reply_to

TOPICS = "# money\nsavings\ntaxes\n\n# health\nsleep\nSleep\n"


@pytest.fixture
def topics(tmp_path: Path) -> str:
    path = tmp_path / "topics.txt"
    path.write_text(TOPICS)
    return str(path)


def step(topics: object, **changes: object) -> Curate:
    return Curate.model_validate({"name": "topics", "kind": "curate", "topics": topics, "per_topic": 10, **changes})


def test_topics_of_a_file(topics: str) -> None:
    assert read_topics(topics) == [Topic("savings", "money"), Topic("taxes", "money"), Topic("sleep", "health")]


def test_topics_without_categories_are_their_own(tmp_path: Path) -> None:
    (tmp_path / "topics.txt").write_bytes(b"\xef\xbb\xbftaxes\r\nsleep\r\n")
    assert read_topics(str(tmp_path / "topics.txt")) == [Topic("taxes", "taxes"), Topic("sleep", "sleep")]


@pytest.mark.parametrize("content", ["", "\n \n", "# a category alone\n"])
def test_a_file_without_topics(tmp_path: Path, content: str) -> None:
    (tmp_path / "topics.txt").write_text(content)
    with pytest.raises(DataError, match="no topics"):
        read_topics(str(tmp_path / "topics.txt"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the topics in 'nowhere.txt': No such file"):
        read_topics("nowhere.txt")
    (tmp_path / "p.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="it is not UTF-8"):
        read_personas(str(tmp_path / "p.txt"))
    (tmp_path / "p.txt").write_text("\n")
    with pytest.raises(DataError, match="no personas"):
        read_personas(str(tmp_path / "p.txt"))


def test_every_topic_gets_its_prompts(topics: str) -> None:
    collected = curate(step(topics), all_prompts(), ScriptedAsk(), seed=0)
    assert not collected.stopped
    of_topic = [one.lineage.topic for one in collected.kept if one.lineage]
    assert {topic: of_topic.count(topic) for topic in of_topic} == {"savings": 10, "taxes": 10, "sleep": 10}
    assert collected.categories == {"money": 20, "health": 10}
    for one in collected.kept:
        assert one.split == "train"
        assert one.lineage is not None
        assert (one.lineage.root, one.lineage.parent) == (one.id, None)  # each is the first of a line


@pytest.mark.parametrize(
    ("shares", "wanted"),
    [
        ({"money": 0.5, "health": 0.5}, [8, 7, 15]),
        ({"money": 0.1, "health": 0.9}, [2, 1, 27]),
        ({"money": 1 / 3, "health": 2 / 3}, [5, 5, 20]),
        ({}, [10, 10, 10]),
    ],
)
def test_shares_of_categories(topics: str, shares: dict[str, float], wanted: list[int]) -> None:
    assert quotas(step(topics, shares=shares), read_topics(topics)) == wanted
    assert sum(wanted) == 30


def test_shares_are_met(topics: str) -> None:
    collected = curate(step(topics, shares={"money": 0.2, "health": 0.8}), all_prompts(), ScriptedAsk(), seed=0)
    assert collected.categories == {"money": 6, "health": 24}


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"money": 1.0}, r"the topic 'sleep' is of the category 'health', which has no share"),
        ({"money": 0.5, "health": 0.3, "law": 0.2}, r"no topic is of the category 'law'"),
    ],
)
def test_shares_of_other_categories(topics: str, shares: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        quotas(step(topics, shares=shares), read_topics(topics))


def test_subtopics_and_personas_are_in_the_requests(topics: str, tmp_path: Path) -> None:
    (tmp_path / "personas.txt").write_text("a nurse who works at night\na retired teacher\n")
    ask = ScriptedAsk()
    curate(step(topics, subtopics=2, per_topic=20, personas=str(tmp_path / "personas.txt")), all_prompts(), ask, seed=0)
    requests = [one.messages[0].content for one in ask.asked]
    lists = [one for one in requests if "different subtopics" in one]
    assert len(lists) == 3
    asked = [one for one in requests if "prompts that people might send" in one]
    assert {"a nurse who works at night" in one for one in asked} == {True, False}
    assert all(("nurse" in one) != ("retired teacher" in one) for one in asked)
    for topic in ("savings", "taxes", "sleep"):
        assert len({one.split('"')[1] for one in asked if f'"{topic}: ' in one}) == 2


def test_topics_may_be_generated() -> None:
    ask = ScriptedAsk()
    collected = curate(step({"generate": 4}, per_topic=3), all_prompts(), ask, seed=0)
    assert len({one.lineage.topic for one in collected.kept if one.lineage}) == 4
    first = ask.asked[0].messages[0].content
    assert "List 4 different topics" in first
    assert any(text in first for text in TRAIN)
    assert not any(text in first for text in HELD_OUT)


def test_topics_are_generated_for_each_category_with_a_share() -> None:
    collected = curate(step({"generate": 4}, shares={"law": 0.75, "art": 0.25}), all_prompts(), ScriptedAsk(), seed=0)
    assert collected.categories == {"law": 30, "art": 10}
    assert len({one.lineage.topic for one in collected.kept if one.lineage}) == 4


def test_a_topic_that_is_cut_off_is_none() -> None:
    def script(request: str, sample: int) -> str | Reply:
        cut_off = Reply("1. sleep\n2. bees\n3. tax", "length", Usage(calls=1))
        return cut_off if "different topics" in request else reply_to(request, sample)

    collected = curate(step({"generate": 3}, per_topic=2), all_prompts(), ScriptedAsk(script), seed=0)
    assert [one.lineage.topic for one in collected.kept if one.lineage] == ["sleep", "sleep", "bees", "bees"]


def test_a_model_that_lists_no_topics_ends_the_step() -> None:
    collected = curate(step({"generate": 4}), all_prompts(), ScriptedAsk(lambda request, sample: "Sorry?"), seed=0)
    assert (collected.kept, collected.stopped) == ([], "no topics: the model listed none")
    assert collected.reasons() == {rules.NO_LIST: 1}


def test_a_category_without_topics_ends_the_step() -> None:
    def script(request: str, sample: int) -> str:
        return "Sorry?" if 'category "art"' in request else reply_to(request, sample)

    collected = curate(step({"generate": 4}, shares={"law": 0.5, "art": 0.5}), all_prompts(), ScriptedAsk(script), seed=0)
    assert (collected.kept, collected.stopped) == ([], "no topics: the model listed none for art")


def test_a_topic_that_yields_nothing_is_named_and_the_others_are_not_kept_from_theirs(topics: str) -> None:
    def script(request: str, sample: int) -> str:
        return "I know nothing about that." if '"taxes"' in request else reply_to(request, sample)

    ask = ScriptedAsk(script)
    collected = curate(step(topics, patience=3), all_prompts(), ask, seed=0)
    assert collected.stopped == "these topics gave too few (patience, max_requests): taxes (0 of 10)"
    assert collected.categories == {"money": 10, "health": 10}
    assert sum('"taxes"' in one.messages[0].content for one in ask.asked) <= 3 + 4
    assert collected.reasons()[rules.NO_LIST] >= 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Why so?", rules.TOO_SHORT),
        ("Show me a picture of a fox", rules.FORBIDDEN_WORD),
        ("Each must make sense alone and must be answerable in text.", rules.LEAKED),
        ("Which birds stay in the city during warm months?", rules.SIMILAR),
        (HELD_OUT[1], "repeats a held-out prompt"),
        ("Translate my excuse into polite business Korean", "too similar to a held-out prompt"),
    ],
)
def test_each_rule_is_a_reason_of_its_own(topics: str, text: str, reason: str) -> None:
    ask = ScriptedAsk(lambda request, sample: numbered([text]))
    assert curate(step(topics, max_requests=1), all_prompts(), ask, seed=0).reasons() == {reason: 1}


def test_requests_are_limited_in_all(topics: str) -> None:
    ask = ScriptedAsk(lambda request, sample: numbered([prompt_about(request)]))
    collected = curate(step(topics, max_requests=7), all_prompts(), ask, seed=0)
    assert len(ask.asked) == 7 == collected.requests
    assert collected.stopped


def test_the_order_of_the_prompts_changes_nothing(topics: str) -> None:
    prompts = all_prompts()
    kept = curate(step({"generate": 3}), prompts, ScriptedAsk(), seed=0).kept
    random.Random(0).shuffle(prompts)
    assert curate(step({"generate": 3}), prompts, ScriptedAsk(), seed=0).kept == kept
