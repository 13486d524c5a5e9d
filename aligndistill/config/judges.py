"""The schema of the judges."""

from collections.abc import Container
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from aligndistill.config.models import ModelRef
from aligndistill.config.path_fields import HomeText
from aligndistill.config.section import NAME_PATTERN, HashedIfSet, PluginName, ReadsFile, Section

TEMPLATES = ("general", "harmless", "helpful", "listwise", "rubric")
"""The built-in templates of judges. Files with these names are not read."""

DOMAINS = ("code", "finance", "general", "law", "medicine")
"""The built-in domains. Folders with these names are not read."""

COMPARISONS_PATTERN = r"^(all|sort|swiss|random\([1-9]\d*\))$"


class JudgeSection(Section):
    """Properties of every kind of judge.

    Attributes:
        needs_local_model: it needs its model's log-probabilities of whole answers, which servers do not provide.
        compares: its verdicts compare answers to a prompt, so it needs at least two.
        computes: it is deterministic, so asking twice gives no information.
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
    """An example shown to the judge before the actual question.

    Attributes:
        answers: in the order shown: one for `rubric`, two for `pairwise`, any number for `listwise`.
        verdict: the expected verdict: `A`, `7`, `B > A > C`.
        reason: the reason for it; required with `reasoning`.
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
    """Settings of all judges that prompt a chat model.

    Attributes:
        max_new_tokens: the longest reply; by default 64, or 512 with `reasoning`.
        reasoning: ask for reasons before the verdict. The verdict is then read from the text, not from log-probabilities.
        samples: replies per question if the model gives no log-probabilities, at temperature 1; their mean is a soft verdict.
        examples: shown before each question, as earlier turns.
        max_answer_characters: longer answers are truncated, with a note.
        domain: whose criteria the template asks by: `general`, `finance`, `law`, `code`, `medicine`, or a folder with `rubric.txt`.
    """

    model: ModelRef = "teacher"
    max_new_tokens: int | None = Field(default=None, gt=0)
    reasoning: bool = False
    samples: int = Field(default=1, gt=0)
    examples: tuple[JudgeExample, ...] = ()
    max_answer_characters: int = Field(default=20_000, gt=0)
    domain: Annotated[str | None, ReadsFile, HashedIfSet] = None

    def hashed_by_name_alone(self) -> Container[str]:
        """See `Section`."""
        built_in = {"domain": DOMAINS, "template": TEMPLATES}
        return {field for field, names in built_in.items() if getattr(self, field, None) in names}

    @property
    def reply_tokens(self) -> int:
        """`max_new_tokens`, or its default for this kind of reply."""
        return self.max_new_tokens or (512 if self.reasoning else 64)

    def _each_example_has(self, answers: int) -> None:
        for number, example in enumerate(self.examples):
            if len(example.answers) != answers:
                raise ValueError(
                    f"examples[{number}] has {len(example.answers)} 'answers', but this kind of judge needs exactly {answers}"
                )


class Pairwise(ChatJudge):
    """Which of two answers is better; asked in both orders by default.

    Attributes:
        template: `helpful`, `harmless`, `general`, or the path of a text file with the fields
            `{prompt}`, `{first}` and `{second}`.
        comparisons: which pairs to compare: `all`, or fewer for nearly the same ranking: `sort`, `swiss` or `random(n)`.
    """

    compares: ClassVar[bool] = True

    kind: Literal["pairwise"]
    template: Annotated[HomeText, ReadsFile] = "general"
    both_orders: bool = True
    comparisons: str = Field(default="all", pattern=COMPARISONS_PATTERN)

    @model_validator(mode="after")
    def _two_answers(self) -> "Pairwise":
        self._each_example_has(2)
        return self


class Listwise(ChatJudge):
    """A ranking of all answers in one reply; asked with the list in an order chosen by hash and in the reverse order.

    Attributes:
        template: `listwise`, or the path of a text file with the fields `{prompt}` and `{responses}`.
    """

    compares: ClassVar[bool] = True

    kind: Literal["listwise"]
    template: Annotated[HomeText, ReadsFile] = "listwise"
    both_orders: bool = True


class Rubric(ChatJudge):
    """Grade from `lowest` to `highest`: the expected value over the grade tokens if there are log-probs, else the parsed grade.

    Attributes:
        template: `rubric`, or the path of a text file with the fields `{prompt}`, `{response}`, `{lowest}`, `{highest}`.
    """

    kind: Literal["rubric"]
    template: Annotated[HomeText, ReadsFile] = "rubric"
    lowest: int = 1
    highest: int = 10

    @model_validator(mode="after")
    def _scale_goes_up(self) -> "Rubric":
        if self.lowest >= self.highest:
            raise ValueError("'lowest' must be less than 'highest'")
        self._each_example_has(1)
        return self


class Function(JudgeSection):
    """Grade = the value of your function `(prompt: str, responses: list[str]) -> list[float]`."""

    kind: Literal["function"]
    function: PluginName


class RewardScore(JudgeSection):
    """Grade = the score of a sequence classifier with one label: a Hub name or a local folder.

    Attributes:
        pessimism: of a reward model that was trained as an ensemble: lower the score by this times the standard deviation over the
            members.
    """

    computes: ClassVar[bool] = True

    kind: Literal["reward_model"]
    model: Annotated[HomeText, ReadsFile]
    revision: str | None = None
    layout: Literal["chat", "transcript", "plain"] = "chat"
    trust_remote_code: bool = False
    pessimism: Annotated[float, HashedIfSet] = Field(default=0.0, ge=0)


class ByAuthor(JudgeSection):
    """Grade = 1 for the candidates of one author and 0 for all others, whatever they say.

    Attributes:
        best: a name of `candidates.from`, or `demonstrations`.
    """

    computes: ClassVar[bool] = True

    kind: Literal["author"]
    best: str


Single = Likelihood | Pairwise | Listwise | Rubric | Function | RewardScore | ByAuthor
"""Every kind of judge but the panel."""


class PanelMember(Section):
    """A judge of a panel.

    Attributes:
        weight: its weight relative to the other members.
        temperature: its grades are divided by this before their difference is used as a logit.
    """

    judge: Annotated[Single, Field(discriminator="kind")]
    weight: float = Field(default=1.0, gt=0)
    temperature: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _both_orders(self) -> "PanelMember":
        if isinstance(self.judge, Pairwise | Listwise) and not self.judge.both_orders:
            raise ValueError("a panel member needs both_orders: true, because its position bias could not be removed otherwise")
        return self


class Panel(JudgeSection):
    """Several judges combined into one that compares.

    Attributes:
        members: by name; their own verdicts have this name as the judge.
        combine: `mean` of the probabilities, `vote`, or `product` of experts.
    """

    compares: ClassVar[bool] = True

    kind: Literal["panel"]
    members: dict[Annotated[str, Field(pattern=NAME_PATTERN)], PanelMember] = Field(min_length=2)
    combine: Literal["mean", "vote", "product"] = "mean"


Judge = Annotated[Single | Panel, Field(discriminator="kind")]
