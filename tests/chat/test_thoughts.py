import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligndistill.chat.thoughts import split_thoughts

FAMILIES = [
    ("<think>\n", "\n</think>\n\n"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>\n", "\n</mm:think>\n"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought\n", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|channel|>analysis<|message|>", "<|start|>assistant<|channel|>final<|message|>"),  # where the end token was dropped
]


@pytest.mark.parametrize(("opening", "closing"), FAMILIES)
def test_thoughts_at_the_start_are_cut(opening: str, closing: str) -> None:
    assert split_thoughts(f"{opening}Rome? No.{closing}Paris.") == ("Rome? No.", "Paris.", False)
    assert split_thoughts(f"\n {opening}a\n\nb{closing}Paris.\n\nIn France.") == ("a\n\nb", "Paris.\n\nIn France.", False)
    assert split_thoughts(f"{opening}{closing}Paris.") == ("", "Paris.", False)


@pytest.mark.parametrize(("opening", "closing"), FAMILIES)
def test_a_reply_that_ends_inside_its_thoughts_has_no_answer(opening: str, closing: str) -> None:
    assert split_thoughts(f"{opening}Rome? Is it") == ("Rome? Is it", "", True)
    assert split_thoughts(opening) == ("", "", True)
    assert split_thoughts(f"{opening}Rome?{closing}") == ("Rome?", "", False)  # finished, with nothing behind


@pytest.mark.parametrize(
    "closing", ["</think>", "[/THINK]", "</seed:think>", "</mm:think>", "<|END_THINKING|>", "<channel|>", "</THINK>"]
)
def test_a_closing_marker_without_an_opening_one_ends_thoughts(closing: str) -> None:
    assert split_thoughts(f"Rome? No.\n{closing}\n\nParis.") == ("Rome? No.", "Paris.", False)
    assert split_thoughts(f"{closing}Paris.") == ("", "Paris.", False)


def test_the_first_closing_marker_ends_the_thoughts() -> None:
    assert split_thoughts("<think>a</think>Write </think> to close it.") == ("a", "Write </think> to close it.", False)


def test_an_empty_block_before_the_reply_does_not_hide_its_thoughts() -> None:
    """llama.cpp's reply to an answer that begins with an empty block, behind a prompt that has opened one."""
    assert split_thoughts("<think>\n\n</think>\n\nrain or wind\n</think>\n\nA") == ("rain or wind", "A", False)
    assert split_thoughts("<think>\n\n</think>\n\nWrite <think> and </think> around it.").answer.startswith("Write <think>")


def test_several_blocks_at_the_start_are_all_thoughts() -> None:
    assert split_thoughts("<think>a</think>\n<think>b</think> c") == ("a\nb", "c", False)
    assert split_thoughts("<think>a</think><think>b") == ("a\nb", "", True)
    preamble = "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary to=user<|message|>b<|end|>"
    assert split_thoughts(f"{preamble}<|start|>assistant<|channel|>final<|message|>c") == ("a\nb", "c", False)


def test_an_answer_with_a_header_and_no_thoughts() -> None:
    assert split_thoughts("<|channel|>final<|message|>Paris.") == ("", "Paris.", False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " Paris.\n",
        "Write <think> before it.",
        "Write <think>like this</think> before it.",
        "a < b, [THINKING], <thinking>, channel, analysis, final",
        "A phrase that ends <|end|> here.",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert split_thoughts(text) == ("", text, False)


@given(st.text(alphabet="<>/|[]thinkTHINK \n:seedm", max_size=60))
def test_what_has_no_answer_has_no_text_and_nothing_is_added(text: str) -> None:
    thoughts, answer, unfinished = split_thoughts(text)
    assert text.endswith(answer)
    assert not (unfinished and answer)
    assert len(thoughts) + len(answer) <= len(text)
