"""Prompts for the tests of elicitation."""

from collections.abc import Sequence

from aligndistill.records import Message, Prompt, Split, prompt_id

TRAIN = (
    "Explain how a compass finds north",
    "Which birds stay in the city during cold months?",
    "Write a poem that praises slow trains and long evenings",
    "How do I repair a chair whose leg has come loose?",
    "Give me a recipe with lentils, carrots and ginger",
    "What should I pack for a week of walking in the hills?",
    "Compare two ways of learning a new language as an adult",
    "Summarise the plot of a story about a lighthouse keeper",
)
HELD_OUT = (
    "Describe the taste of saffron to a person who has never cooked with spices before",
    "How many bridges cross the river that flows through Vienna?",
    "Translate my apology into polite business Korean",
)


def prompt(text: str | Sequence[Message], split: Split = "train") -> Prompt:
    messages = (Message(role="user", content=text),) if isinstance(text, str) else tuple(text)
    return Prompt(id=prompt_id(messages), messages=messages, source="test", split=split)


def all_prompts() -> list[Prompt]:
    return [*(prompt(text) for text in TRAIN), *(prompt(text, "held_out") for text in HELD_OUT)]


def texts(prompts: Sequence[Prompt]) -> list[str]:
    """The new text of each: its last user turn."""
    return [one.messages[-1].content for one in prompts]
