"""The schema of `prompts.elicit`: steps in which models write new prompts."""

from collections.abc import Mapping
from math import ceil
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from aligndistill.config.section import NAME_PATTERN, HashedIfSet, ReadsFile, Section, name_or_section

REQUESTS_OF_NEED = 4
"""By default a step sends at most this many times the requests that it would need if every prompt were kept."""

FORBIDDEN = ("image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps", "draw", "plot", "go to")
"""Self-Instruct's words for what a model of text alone cannot do (`bootstrap_instructions.py`)."""


def _list_of_names(value: Any) -> Any:
    """`model: teacher` is short for `model: [teacher]`."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


class ElicitStep(Section):
    """What every step has.

    Attributes:
        name: of the stage, `prompts-NAME`.
        models: the names of those that are asked, in turn.
        max_similarity: a new prompt with a higher ROUGE-L to a held-out prompt is dropped.
        temperature, max_new_tokens: of every reply that holds new prompts.
        weak_seeds: run the step before every round but the first instead of once, and show models these prompts alone: so many
            that the student was weakest at in the round before.
    """

    name: str = Field(pattern=NAME_PATTERN)
    models: Annotated[tuple[str, ...], BeforeValidator(_list_of_names)] = Field(default=("teacher",), alias="model", min_length=1)
    max_similarity: float = Field(default=0.7, gt=0, le=1)
    temperature: float = Field(default=1.0, ge=0)
    max_new_tokens: int = Field(default=1024, gt=0)
    weak_seeds: Annotated[int | None, HashedIfSet] = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _each_model_once(self) -> "ElicitStep":
        if len(set(self.models)) < len(self.models):
            raise ValueError("'model' lists a model twice")
        return self


class Searching(ElicitStep):
    """A step that asks until it has enough new prompts, each unlike all training prompts and all others of the step.

    Attributes:
        max_similarity: as in every step; also to each training prompt and to each prompt that the step has kept.
        length: the fewest and the most words of a prompt; characters in scripts without spaces.
        forbidden: words that a prompt must not contain.
        patience: the step ends after this many requests in a row that gave no new prompt.
        max_requests: the step ends after this many; by default four times what would do if everything were kept.
    """

    length: tuple[int, int] = (4, 150)
    forbidden: tuple[str, ...] = FORBIDDEN
    patience: int = Field(default=20, gt=0)
    max_requests: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _shortest_first(self) -> "Searching":
        if not 0 < self.length[0] <= self.length[1]:
            raise ValueError("'length' is [fewest, most], both at least 1")
        return self

    def limit(self, wanted: int, per_request: int) -> int:
        """The most requests for this many prompts."""
        return self.max_requests or REQUESTS_OF_NEED * ceil(wanted / per_request)


class Expand(Searching):
    """More prompts like the user's, from examples (Self-Instruct, arXiv:2212.10560).

    Attributes:
        target: new prompts wanted.
        shots: examples in a request, of training prompts; `own_shots` of them are prompts that models wrote, once there are any.
        per_request: prompts that a request asks for.
        forbidden_start: how a prompt must not begin.
    """

    kind: Literal["expand"]
    target: int = Field(gt=0)
    shots: int = Field(default=8, gt=0)
    own_shots: int = Field(default=2, ge=0)
    per_request: int = Field(default=8, gt=0)
    forbidden_start: tuple[str, ...] = ("Write a program",)
    temperature: float = Field(default=0.7, ge=0)

    @model_validator(mode="after")
    def _some_are_the_users(self) -> "Expand":
        if self.own_shots >= self.shots:
            raise ValueError("'own_shots' must be less than 'shots': at least one example is the user's")
        return self


Operation = Literal["constraints", "deepen", "concretise", "reasoning", "breadth"]
OPERATIONS: tuple[Operation, ...] = ("constraints", "deepen", "concretise", "reasoning", "breadth")


class Evolve(ElicitStep):
    """Harder and rarer prompts, each made from a training prompt (Evol-Instruct, arXiv:2304.12244).

    Attributes:
        per_prompt: new prompts from each prompt.
        rounds: how often; the second round evolves what the first one wrote, and so on.
        operations: one is drawn for each new prompt.
        compare: ask whether the new prompt says the same as the old one, and drop it then.
        answer: ask for an answer to the new prompt, and drop the prompt if that is a short refusal.
        answer_tokens: the longest such answer.
    """

    kind: Literal["evolve"]
    per_prompt: int = Field(default=1, gt=0)
    rounds: int = Field(default=1, gt=0)
    operations: tuple[Operation, ...] = Field(default=OPERATIONS, min_length=1)
    compare: bool = True
    answer: bool = False
    answer_tokens: int = Field(default=256, gt=0)

    def most_prompts(self, train: int) -> int:
        """New prompts from this many training prompts, if every one is kept."""
        return sum(train * self.per_prompt**number for number in range(1, self.rounds + 1))

    def most_requests(self, train: int) -> int:
        """Requests, if every prompt is kept."""
        return self.most_prompts(train) * (1 + self.compare + self.answer)


class GeneratedTopics(Section):
    """Topics that a model lists. With `shares`, so many for the categories together."""

    generate: int = Field(gt=0)


Topics = Annotated[
    Annotated[str, Tag("name"), ReadsFile] | Annotated[GeneratedTopics, Tag("section")], Discriminator(name_or_section)
]


class Curate(Searching):
    """Prompts about given topics (as UltraChat and GLAN have it), by people of all kinds (Persona-hub).

    Attributes:
        topics: a text file with a topic a line, below lines `# CATEGORY` if there are categories; or `{generate: N}`.
        subtopics: so many are asked for each topic, and then used in turn; 0 for none.
        per_topic: prompts wanted for each topic.
        per_request: prompts that a request asks for.
        personas: a text file with a person a line, drawn for each request.
        shares: of all prompts, by category; by default each topic has `per_topic`.
        patience: of a topic.
    """

    kind: Literal["curate"]
    topics: Topics
    subtopics: int = Field(default=0, ge=0)
    per_topic: int = Field(default=20, gt=0)
    per_request: int = Field(default=5, gt=0)
    personas: Annotated[str | None, ReadsFile] = None
    shares: Mapping[str, float] = Field(default={})
    patience: int = Field(default=5, gt=0)

    @model_validator(mode="after")
    def _shares_are_shares(self) -> "Curate":
        if self.shares and (min(self.shares.values()) <= 0 or abs(sum(self.shares.values()) - 1) > 1e-6):
            raise ValueError(f"'shares' must be positive and have the sum 1, found {sum(self.shares.values()):g}")
        return self


class Magpie(Searching):
    """Prompts that a model writes when it gets its chat template up to the user's turn and nothing else (arXiv:2406.08464).

    Attributes:
        target: new prompts wanted.
        max_new_tokens: a longer prompt is dropped.
    """

    kind: Literal["magpie"]
    target: int = Field(gt=0)
    max_new_tokens: int = Field(default=256, gt=0)


Step = Annotated[Expand | Evolve | Curate | Magpie, Field(discriminator="kind")]
