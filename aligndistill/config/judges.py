"""The schema of the judges."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from aligndistill.config.models import ModelRef
from aligndistill.config.section import NAME_PATTERN, PluginName, ReadsFile, Section

COMPARISONS_PATTERN = r"^(all|sort|swiss|random\([1-9]\d*\))$"


class JudgeSection(Section):
    """What every judge's section says of it.

    Attributes:
        needs_local_model: it reads its model's own log-probabilities, which no server gives.
        compares: its verdicts compare the answers to a prompt, so it needs two or more.
        computes: it computes its verdicts, so that asking twice shows nothing.
    """

    needs_local_model: ClassVar[bool] = False
    compares: ClassVar[bool] = False
    computes: ClassVar[bool] = False


class Likelihood(JudgeSection):
    """Grade = the teacher's mean log-probability per token of the response, nats."""

    needs_local_model: ClassVar[bool] = True
    computes: ClassVar[bool] = True

    kind: Literal["likelihood"] = "likelihood"
    model: ModelRef = "teacher"


class JudgeExample(Section):
    """A question with its answer, shown to the judge before the real one.

    Attributes:
        answers: in the order in which they are shown: one for `rubric`, two for `pairwise`, any number for `listwise`.
        verdict: what the judge should say: `A`, `7`, `B > A > C`.
        reason: why; needed with `reasoning`.
    """

    prompt: str
    answers: tuple[str, ...] = Field(min_length=1)
    verdict: str
    reason: str = ""

    @field_validator("verdict", mode="before")
    @classmethod
    def _number_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class ChatJudge(JudgeSection):
    """What all judges have that put questions to a chat model.

    Attributes:
        max_new_tokens: the longest reply; 64, or 512 with `reasoning`, unless given.
        reasoning: have reasons written before the verdict. It is read off the text then, not off log-probabilities.
        samples: replies per question where the model gives no log-probabilities, at temperature 1: their mean is a soft verdict.
        examples: shown before each question, as earlier turns.
        max_answer_characters: longer answers are cut, and say so.
    """

    model: ModelRef = "teacher"
    max_new_tokens: int | None = Field(default=None, gt=0)
    reasoning: bool = False
    samples: int = Field(default=1, gt=0)
    examples: tuple[JudgeExample, ...] = ()
    max_answer_characters: int = Field(default=20_000, gt=0)

    @property
    def reply_tokens(self) -> int:
        """`max_new_tokens`, or what suits the kind of reply."""
        return self.max_new_tokens or (512 if self.reasoning else 64)

    def _each_example_has(self, answers: int) -> None:
        for number, example in enumerate(self.examples):
            if len(example.answers) != answers:
                raise ValueError(
                    f"'examples' {number} has {len(example.answers)} 'answers', and this kind of judge is shown {answers}"
                )


class Pairwise(ChatJudge):
    """Which of two answers is better; asked in both orders unless told otherwise.

    Attributes:
        template: `helpful`, `harmless`, `general`, or the path of a text file with the fields
            `{prompt}`, `{first}` and `{second}`.
        comparisons: which pairs: `all`, or fewer for nearly the same ranking: `sort`, `swiss` or `random(n)`.
    """

    compares: ClassVar[bool] = True

    kind: Literal["pairwise"]
    template: Annotated[str, ReadsFile] = "general"
    both_orders: bool = True
    comparisons: str = Field(default="all", pattern=COMPARISONS_PATTERN)

    @model_validator(mode="after")
    def _two_answers(self) -> "Pairwise":
        self._each_example_has(2)
        return self


class Listwise(ChatJudge):
    """All answers put in order at once; asked with the list in an order drawn by hash and in its reverse.

    Attributes:
        template: `listwise`, or the path of a text file with the fields `{prompt}` and `{responses}`.
    """

    compares: ClassVar[bool] = True

    kind: Literal["listwise"]
    template: Annotated[str, ReadsFile] = "listwise"
    both_orders: bool = True


class Rubric(ChatJudge):
    """Grade from `lowest` to `highest`: the expected value over the score's tokens where log-probs exist, else the parsed one.

    Attributes:
        template: `rubric`, or the path of a text file with the fields `{prompt}`, `{response}`, `{lowest}`, `{highest}`.
    """

    kind: Literal["rubric"]
    template: Annotated[str, ReadsFile] = "rubric"
    lowest: int = 1
    highest: int = 10

    @model_validator(mode="after")
    def _scale_goes_up(self) -> "Rubric":
        if self.lowest >= self.highest:
            raise ValueError("'lowest' must be less than 'highest'")
        self._each_example_has(1)
        return self


class Function(JudgeSection):
    """Grade = your function: `(prompt: str, responses: list[str]) -> list[float]`."""

    kind: Literal["function"]
    function: PluginName


class RewardScore(JudgeSection):
    """Grade = the score of a sequence classifier with one label: a Hub name or a local folder."""

    computes: ClassVar[bool] = True

    kind: Literal["reward_model"]
    model: Annotated[str, ReadsFile]
    revision: str | None = None
    layout: Literal["chat", "transcript", "plain"] = "chat"
    trust_remote_code: bool = False


SingleJudge = Annotated[Likelihood | Pairwise | Listwise | Rubric | Function | RewardScore, Field(discriminator="kind")]


class PanelMember(Section):
    """A judge of a panel.

    Attributes:
        weight: what it counts beside the others.
        temperature: its grades are divided by it before their difference is read as a logit.
    """

    judge: SingleJudge
    weight: float = Field(default=1.0, gt=0)
    temperature: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _both_orders(self) -> "PanelMember":
        if isinstance(self.judge, Pairwise | Listwise) and not self.judge.both_orders:
            raise ValueError("a panel's member asks in both orders: its preference for a place could not be taken off otherwise")
        return self


class Panel(JudgeSection):
    """Several judges as one that compares.

    Attributes:
        members: by name, which their own verdicts carry.
        combine: `mean` of the probabilities, `vote`, or `product` of experts.
    """

    compares: ClassVar[bool] = True

    kind: Literal["panel"]
    members: dict[Annotated[str, Field(pattern=NAME_PATTERN)], PanelMember] = Field(min_length=2)
    combine: Literal["mean", "vote", "product"] = "mean"


Judge = Annotated[
    Likelihood | Pairwise | Listwise | Rubric | Function | RewardScore | Panel,
    Field(discriminator="kind"),
]
