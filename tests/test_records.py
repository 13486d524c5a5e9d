import pytest

from aligndistill.records import Candidate, Prompt, candidate_id, group_by_prompt, in_step, prompt_id
from tests.tiny_models import user

PROMPTS = [Prompt(id=prompt_id(user(text)), messages=user(text), source="here", split="train") for text in "abcde"]


def candidates(*places: int) -> list[Candidate]:
    """One for each place of a prompt."""
    ids = [PROMPTS[place].id for place in places]
    return [
        Candidate(id=candidate_id(prompt, "start", str(number)), prompt_id=prompt, text=str(number), author="start", finish="stop")
        for number, prompt in enumerate(ids)
    ]


@pytest.mark.parametrize("places", [(), (0, 0, 1, 4), (1, 1, 3), (4,), (0, 1, 2, 3, 4, 4)])
def test_records_in_step_are_those_of_each_prompt(places: tuple[int, ...]) -> None:
    records = candidates(*places)
    of_prompt = group_by_prompt(records)
    assert list(in_step(PROMPTS, iter(records))) == [(prompt, of_prompt[prompt.id]) for prompt in PROMPTS]


@pytest.mark.parametrize("places", [(1, 0), (0, 1, 0), (3, 2, 4)])
def test_records_in_another_order_are_not_lost_silently(places: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError, match="not in the order of the prompts"):
        list(in_step(PROMPTS, candidates(*places)))
