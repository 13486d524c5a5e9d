import pytest

from aligndistill.data.refusals import is_refusal


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I cannot assist with this request.",
        "I cannot provide instructions for that.",
        "As an AI language model, I do not have feelings.",
        "Unfortunately, I am unable to answer this.",
        "抱歉，我无法提供这方面的信息。",
        "我不能提供相关内容。",
        "申し訳ありませんが、そのご質問にはお答えできません。",
        "I'm sorry, I can't do that.",
        "I\u2019m unable to answer.",
        "Sorry, but I won't write it.",
        "I cannot assist with this.",
        "As an AI language model, I have no body.",
        "\u62b1\u6b49\uff0c\u6211\u4e0d\u80fd\u56de\u7b54\u3002",
        "\u7533\u3057\u8a33\u3042\u308a\u307e\u305b\u3093\u3002",
    ],
)
def test_refusals_are_found(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "I can help you write a letter that says you cannot come.",
        "Sorry for the delay! Here is the list.",
        "Write a letter in which you say: I'm sorry, but I can't come.",
        "To refuse politely, say 'I cannot assist'.",
        "I cannot believe how fast light is: 299,792 km/s.",
        "对不起的英文是 sorry。",
        "def refuse(): return 'cannot'",
        "申し訳ないという言葉の意味は次のとおりです。",
        "I can't stress enough how good it is.",
        "Sorry is a word of five letters.",
        "He said: I'm sorry.",
        "The AI answered.",
        "4",
    ],
)
def test_other_answers_are_no_refusals(text: str) -> None:
    assert not is_refusal(text)
