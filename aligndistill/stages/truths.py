"""What the truth function says of answers."""

from collections.abc import Mapping, Sequence

from aligndistill.config.plugins import load_plugin
from aligndistill.errors import DataError
from aligndistill.judges.function import scores_of
from aligndistill.records import Candidate, Message, plain_prompt


def truths_of(
    name: str, messages: Mapping[str, tuple[Message, ...]], answers: Mapping[str, Sequence[Candidate]]
) -> dict[str, dict[str, float]]:
    """The score of each answer, higher is better, by prompt id and answer id; one call for each prompt.

    Args:
        name: `package.module:name` of the function.
        messages, answers: by prompt id; prompts without answers are left out.

    Raises:
        DataError: the function raised, or did not return one finite number per answer.
        ConfigError: see `load_plugin`.
    """
    function, truths = load_plugin(name), {}
    for prompt, some in answers.items():
        texts = [one.text for one in some]
        scores = scores_of(f"the truth function {name}", function, plain_prompt(messages[prompt]), texts, DataError)
        truths[prompt] = dict(zip((one.id for one in some), scores, strict=True))
    return truths
