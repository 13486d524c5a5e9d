"""The schema of candidates: which answers are judged."""

from typing import Annotated

from pydantic import Field

from aligndistill.config.data import Source
from aligndistill.config.labels import Revise
from aligndistill.config.section import HashedIfSet, NotHashed, Section

DEMONSTRATIONS = "demonstrations"
"""The author of a data set's answers among the candidates."""


class Candidates(Section):
    """Candidates: `per_prompt` answers to each prompt from each model named in `from`.

    Held-out prompts get candidates too: the reward model is evaluated on their verdicts, and nothing is trained on them.

    Attributes:
        demonstrations: a data set's answer to a prompt, where it has one, joins the candidates, as those of the author
            `demonstrations`.
        revise: each candidate is criticised and revised, and the revision joins the candidates.
    """

    per_prompt: int = Field(default=4, gt=0)
    authors: tuple[str, ...] = Field(default=("start",), alias="from", min_length=1)
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=256, gt=0)
    max_prompt_tokens: int = Field(default=512, gt=0)
    demonstrations: Annotated[Source | None, HashedIfSet] = None
    revise: Annotated[Revise | None, NotHashed] = None  # by the stage that makes the candidates; another one revises them

    @property
    def answers(self) -> int:
        """How many answers a prompt has, revisions aside."""
        return self.per_prompt * len(self.authors) + (self.demonstrations is not None)
