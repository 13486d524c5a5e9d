"""What `report.json` says of prompts and demonstrations that models wrote."""

from collections.abc import Mapping

from pydantic import Field, FiniteFloat

from aligndistill.records import Record


class LabelCounts(Record):
    """Training prompts of one difficulty: all, those with a label, and their labels."""

    prompts: int
    labelled: int
    labels: int


class DemonstrationMetrics(Record):
    """The demonstrations that a model wrote.

    Attributes:
        counts: of training prompts, prompts with a label, labels and rows of the student; if there are any, of labels with a hint
            and revisions among them.
        dropped: the other answers, by reason.
        by_accepted: prompts by the share of their answers that were accepted, hardest first. Empty if everything is accepted, or
            the best of each prompt.
    """

    counts: Mapping[str, int]
    dropped: Mapping[str, int]
    by_accepted: Mapping[str, LabelCounts] = {}


class DiversityMetrics(Record):
    """How unlike each other some prompts are. All of it depends on their number.

    Attributes:
        prompts: their number.
        distinct_1, distinct_2: distinct words, and pairs of words, over all.
        compression: bytes over bytes after zlib: higher where prompts repeat each other.
        nearest_mean, nearest_p10: of each prompt's ROUGE-L to the nearest of the others, the mean and the 10th percentile.
    """

    prompts: int
    distinct_1: FiniteFloat | None
    distinct_2: FiniteFloat | None
    compression: FiniteFloat
    nearest_mean: FiniteFloat
    nearest_p10: FiniteFloat


class ElicitedSample(Record):
    """A prompt that a model wrote, and the one that it was made from, or resembles most; None if there is none."""

    operation: str
    author: str
    topic: str | None
    parent: str | None
    text: str


class ElicitationMetrics(Record):
    """A step in which models wrote prompts.

    Attributes:
        requests: for new prompts, without those that compare or answer them.
        parsed: prompts that were found in the replies.
        kept: new prompts.
        dropped: prompts, and whole replies, by reason.
        stopped: why it ended with fewer prompts than it was to write; None if it did not.
        calls, prompt_tokens, completion_tokens: of all requests, those included whose replies were cached.
        tokens_per_prompt, usd_per_prompt: for each prompt that was kept; no USD without a price for each model.
        diversity, diversity_before: of the new prompts, and of the training prompts before, on equally many of both.
        novelty: 1 less the mean ROUGE-L of a new prompt to the nearest training prompt from before the step.
        fertile: the share of the new prompts that go back to the ten most fertile prompts; None if they go back to none.
        categories: shares of the new prompts, by category of their topic, or else by operation.
        samples: up to three of each operation.
        round, seeds: that the prompts were written for, from so many prompts that the student was weak at; None before the first.
    """

    step: str
    kind: str
    models: tuple[str, ...]
    requests: int
    parsed: int
    kept: int
    dropped: Mapping[str, int]
    stopped: str | None
    calls: int
    prompt_tokens: int
    completion_tokens: int
    tokens_per_prompt: FiniteFloat | None
    usd_per_prompt: FiniteFloat | None
    diversity: DiversityMetrics | None = None
    diversity_before: DiversityMetrics | None = None
    novelty: FiniteFloat | None = None
    fertile: FiniteFloat | None = None
    categories: Mapping[str, FiniteFloat] = {}
    samples: tuple[ElicitedSample, ...] = ()
    round: str | None = Field(default=None, exclude_if=lambda name: name is None)
    seeds: int | None = Field(default=None, exclude_if=lambda count: count is None)

    @property
    def name(self) -> str:
        """The step, with the round."""
        return self.step if self.round is None else f"{self.step}, round {self.round}"
