from pathlib import Path

from aligndistill.records import Candidate, Comparison, Grade
from aligndistill.reporting.verdicts_page import JudgedPrompt, write_verdicts_page


def candidate(text: str) -> Candidate:
    return Candidate(id=text, prompt_id="p", text=text, author="start")


def test_thoughts_are_shown_apart_from_the_reply_and_escaped(tmp_path: Path) -> None:
    thought = Comparison(
        prompt_id="p", first="x", second="y", probability_first=1.0, outcome="first", judge="j", reply="A", thoughts="<b>hm</b>"
    )
    plain = Grade(prompt_id="p", candidate="x", value=3.0, judge="j", reply="3")
    write_verdicts_page(tmp_path / "page.html", [JudgedPrompt("why", (candidate("x"), candidate("y")), (thought, plain))])
    page = (tmp_path / "page.html").read_text()
    assert page.count("<details><summary>thoughts</summary>") == 1
    assert "&lt;b&gt;hm&lt;/b&gt;" in page
    assert "<b>hm</b>" not in page
