from aligndistill.chat.protocol import LabelLogprobs, Request, SamplingParams
from aligndistill.chat.scripted import ScriptedChat
from aligndistill.records import Message, Usage

MESSAGES = (Message(role="user", content="say it again"),)


def test_follows_the_script_and_counts_words() -> None:
    chat = ScriptedChat(lambda messages, sample: f"{messages[-1].content} number {sample}")
    answers = list(chat.answer([Request(MESSAGES, (0, 4))], SamplingParams(0.0, max_new_tokens=4)))
    assert [(a.request, a.sample, a.reply.text, a.reply.finish) for a in answers] == [
        (0, 0, "say it again number", "length"),
        (0, 4, "say it again number", "length"),
    ]
    assert answers[0].reply.usage == Usage(calls=1, prompt_tokens=3, completion_tokens=4)


def test_labels_only_with_a_script_for_them() -> None:
    silent = ScriptedChat(lambda messages, sample: "")
    assert list(silent.label_logprobs([MESSAGES], ("A", "B"))) == [LabelLogprobs(0, None, Usage())]
    chat = ScriptedChat(lambda messages, sample: "", logprobs=lambda messages, labels: (-0.1, -2.3))
    expected = LabelLogprobs(0, (-0.1, -2.3), Usage(calls=1, prompt_tokens=3, completion_tokens=1))
    assert list(chat.label_logprobs([MESSAGES], ("A", "B"))) == [expected]
