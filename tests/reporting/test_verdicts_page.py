import re
from pathlib import Path

import pytest

from aligndistill.records import Candidate, Comparison, Grade
from aligndistill.reporting.verdicts_page import JudgedPrompt, write_verdicts_pages


def candidate(text: str, author: str = "start") -> Candidate:
    return Candidate(id=text, prompt_id="p", text=text, author=author)


def comparison(first: str, second: str, probability: float | None) -> Comparison:
    outcome = "unparsed" if probability is None else "tie" if probability == 0.5 else "first" if probability > 0.5 else "second"
    return Comparison(
        prompt_id="p", first=first, second=second, probability_first=probability, outcome=outcome, judge="j", reply="r"
    )


def judged(prompt: str, *verdicts: Comparison | Grade, **more: object) -> JudgedPrompt:
    return JudgedPrompt(prompt, (candidate("x"), candidate("y")), verdicts, **more)  # type: ignore[arg-type]


def text_of(path: Path) -> str:
    body = path.read_text().partition("</style>")[2]
    return " ".join(re.sub(r"<[^>]+>", " ", body).replace("&#39;", "'").split())


def test_thoughts_are_shown_apart_from_the_reply_and_escaped(tmp_path: Path) -> None:
    thought = comparison("x", "y", 1.0).model_copy(update={"reply": "A", "thoughts": "<b>hm</b>"})
    plain = Grade(prompt_id="p", candidate="x", value=3.0, judge="j", reply="3")
    write_verdicts_pages(tmp_path, "run", [judged("why", thought, plain)])
    page = (tmp_path / "verdicts.html").read_text()
    assert page.count("<details><summary>thoughts</summary>") == 1
    assert "&lt;b&gt;hm&lt;/b&gt;" in page
    assert "<b>hm</b>" not in page


def test_failures_come_first_and_every_prompt_says_who_won(tmp_path: Path) -> None:
    both = [comparison("x", "y", 0.9), comparison("y", "x", 0.3)]  # A by 0.9 and by 0.7: 0.80
    flip = [comparison("x", "y", 0.9), comparison("y", "x", 0.6)]  # A by 0.9, then B by 0.6: 0.65
    grades = [Grade(prompt_id="p", candidate=name, value=value, judge="j") for name, value in (("x", -12.21), ("y", -0.183))]
    given = [
        judged("labelled", *both),
        judged("held out", comparison("x", "y", 0.5), held_out=True),
        judged("canary that lost", *grades, canary="echo"),
        judged("unread", comparison("x", "y", None)),
        judged("flipped", *flip),
        judged("canary that won", comparison("x", "y", 0.8), canary="empty"),
    ]
    write_verdicts_pages(tmp_path, "my run", given)
    text = text_of(tmp_path / "verdicts.html")
    order = ["canary that won", "flipped", "unread", "canary that lost", "held out", "labelled"]
    assert sorted(order, key=lambda one: text.index(f" {one} ", text.index("Page" if "Page" in text else "Replies"))) == order
    for shown in [
        "The judge prefers the known-bad answer, A",
        "A beats B, P(A) = 0.80",
        "A or B: the winner changes with the order, P(A) = 0.65 on average",
        "No readable verdict",
        "A and B tie",
        "A or B A wins, P(A) = 0.90",
        "B or A A wins, P(A) = 0.70",
        "B wins, 12.03 ahead of A (grades: B -0.183, A -12.21; higher is better)",
    ]:
        assert shown in text, shown
    assert "<title>Verdicts of my run - aligndistill</title>" in (tmp_path / "verdicts.html").read_text()
    assert 'href="report.html#judge"' in (tmp_path / "verdicts.html").read_text()


def test_the_second_judge_is_shown_beside_the_judge_and_differences_come_before_agreement(tmp_path: Path) -> None:
    given = [
        judged("agreed", comparison("x", "y", 0.9), second=(comparison("y", "x", 0.2),)),
        judged("tied", comparison("x", "y", 0.9), second=(comparison("x", "y", 0.5),)),
        judged("differed", comparison("x", "y", 0.9), second=(comparison("x", "y", 0.4), comparison("y", "x", 0.8))),
        judged("unread", comparison("x", "y", 0.9), second=(comparison("x", "y", None),)),
    ]
    write_verdicts_pages(tmp_path, "run", given)
    text = text_of(tmp_path / "verdicts.html")
    sections = ["The second judge prefers another answer 1", "Replies that could not be read 1", "Candidates that label the data 2"]
    assert sorted(sections, key=text.index) == sections
    for shown in (
        "A beats B, P(A) = 0.90 Second judge: B beats A, P(B) = 0.70",
        "Second judge: A beats B, P(A) = 0.80",
        "Second judge: A and B tie",
        "second judge, B or A B wins, P(B) = 0.80",
        "verdicts 9",
        "unreadable replies 1",
    ):
        assert shown in text, shown


def test_a_hundred_prompts_a_page_and_old_pages_go(tmp_path: Path) -> None:
    many = [judged(f"prompt {number}", comparison("x", "y", 0.8)) for number in range(205)]
    won = judged("fooled", comparison("x", "y", 0.8), canary="empty")
    write_verdicts_pages(tmp_path, "run", [*many, won])
    pages = [tmp_path / "verdicts.html", tmp_path / "verdicts/2.html", tmp_path / "verdicts/3.html"]
    assert [page.read_text().count("<article") for page in pages] == [100, 100, 6]
    assert sorted((tmp_path / "verdicts").iterdir()) == pages[1:]
    for page in pages:
        for link in re.findall(r'href="([^"#]+)"', page.read_text()):
            target = (page.parent / link).resolve()
            assert target.exists() or target.name == "report.html", link
    write_verdicts_pages(tmp_path, "run", many[:3])
    assert not list((tmp_path / "verdicts").iterdir())


@pytest.mark.parametrize("prompts", [0, 1])
def test_few_prompts_have_one_page_without_links_to_others(tmp_path: Path, prompts: int) -> None:
    write_verdicts_pages(tmp_path, "run", [judged("p", comparison("x", "y", 0.8))] * prompts)
    assert "verdicts/" not in (tmp_path / "verdicts.html").read_text()
