"""The schema of the judges."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from aligndistill.config_models import ModelRef, PluginName, Section


class LikelihoodJudge(Section):
    """Grade = the teacher's mean log-probability per token of the response, nats."""

    kind: Literal["likelihood"] = "likelihood"
    model: ModelRef = "teacher"


class PairwiseJudge(Section):
    """Which of two answers is better; asked in both orders unless told otherwise.

    Attributes:
        template: `helpful`, `harmless`, `general`, or the path of a text file with the fields
            `{prompt}`, `{first}` and `{second}`.
    """

    kind: Literal["pairwise"]
    model: ModelRef = "teacher"
    template: str = "general"
    both_orders: bool = True
    max_new_tokens: int = Field(default=64, gt=0)


class RubricJudge(Section):
    """Grade from `lowest` to `highest`: the expected value over the score's tokens where log-probs exist, else the parsed one.

    Attributes:
        template: `rubric`, or the path of a text file with the fields `{prompt}`, `{response}`, `{lowest}`, `{highest}`.
    """

    kind: Literal["rubric"]
    model: ModelRef = "teacher"
    template: str = "rubric"
    lowest: int = 1
    highest: int = 10
    max_new_tokens: int = Field(default=64, gt=0)

    @model_validator(mode="after")
    def _scale_goes_up(self) -> "RubricJudge":
        if self.lowest >= self.highest:
            raise ValueError("'lowest' must be less than 'highest'")
        return self


class FunctionJudge(Section):
    """Grade = your function: `(prompt: str, responses: list[str]) -> list[float]`."""

    kind: Literal["function"]
    function: PluginName


class RewardModelJudge(Section):
    """Grade = the score of a sequence classifier with one label: a Hub name or a local folder."""

    kind: Literal["reward_model"]
    model: str
    revision: str | None = None
    layout: Literal["chat", "transcript", "plain"] = "chat"
    trust_remote_code: bool = False


Judge = Annotated[LikelihoodJudge | PairwiseJudge | RubricJudge | FunctionJudge | RewardModelJudge, Field(discriminator="kind")]


@dataclass(frozen=True)
class JudgeModel:
    """A language model that a judge asks.

    Attributes:
        part: tells the models of one judge apart; empty for the only one.
        key: where the judge's section names it.
        must_be_local: whether its own log-probabilities are read, which no server gives.
    """

    part: str
    key: tuple[str, ...]
    model: ModelRef
    must_be_local: bool = False


def judge_models(judge: Judge | None) -> tuple[JudgeModel, ...]:
    """The language models that a judge asks."""
    match judge:
        case LikelihoodJudge():
            return (JudgeModel("", ("model",), judge.model, must_be_local=True),)
        case PairwiseJudge() | RubricJudge():
            return (JudgeModel("", ("model",), judge.model),)
    return ()


def judging_author(judge: Judge | None) -> str | None:
    """The author (`teacher`, `start`, a key of `models`) whose model is the judge, if it is one alone."""
    named = [asked.model for asked in judge_models(judge)]
    return named[0] if len(named) == 1 and isinstance(named[0], str) else None
