"""The schema of labels and revisions: answers that a model writes to train the student on, and answers that it improves."""

import re
from collections.abc import Container
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from aligndistill.config.data import Source
from aligndistill.config.filters import Filters
from aligndistill.config.judges import DOMAINS, Judge
from aligndistill.config.models import ModelRef
from aligndistill.config.section import NotHashed, PluginName, ReadsFile, Section
from aligndistill.config.training import Training

Rationale = Literal["none", "before", "task"]
"""Whether a label has the reasons for its answer: none, before the answer in one text, or as a task of their own."""


class Revise(Section):
    """Corrective feedback: a model criticises each answer by a principle, then revises it.

    Attributes:
        model: it criticises and revises.
        principles: a text file with one principle per line, or a list. For each step one is drawn by the seed.
        domain: whose principles are used if none are given: `general`, `finance`, `law`, `code`, `medicine`, or a folder.
        times: how often an answer is criticised and revised; the last revision counts.
        max_new_tokens: of a critique, and of a revision.
    """

    model: ModelRef = "teacher"
    principles: Annotated[str | tuple[str, ...] | None, ReadsFile] = None
    domain: Annotated[str | None, ReadsFile] = None
    times: int = Field(default=1, gt=0, le=10)
    temperature: float = Field(default=0.7, ge=0)
    max_new_tokens: int = Field(default=512, gt=0)
    max_prompt_tokens: int = Field(default=4096, gt=0)

    @field_validator("principles")
    @classmethod
    def _has_principles(cls, value: Any) -> Any:
        if isinstance(value, tuple) and not any(one.strip() for one in value):
            raise ValueError("there are no principles: write one, or remove this key")
        return value

    def hashed_by_name_alone(self) -> Container[str]:
        """See `Section`."""
        return ("domain",) if self.domain in DOMAINS else ()


class LabelExamples(Source):
    """Worked examples that the labelling model sees before each prompt, as earlier turns: rows with a prompt and a completion.

    Attributes:
        per_prompt: how many.
        choose: `fixed`: the first rows. `nearest`: those whose prompts are most similar, by ROUGE-L, the most similar last.
    """

    per_prompt: int = Field(default=3, gt=0)
    choose: Literal["fixed", "nearest"] = "fixed"


class LabelRequest(Section):
    """What the labelling model is asked. Nothing of it is in the student's rows but the prompt.

    Attributes:
        model: the model that answers. `start` is the start as it was before `sft`.
        instruction: a text file; its system turn.
        domain: a set of instruction and examples, used where those are not given: see `Revise`.
        rationale: `before`: reasons, then the answer, in one text. `task`: asked in the same way; the student learns answers and
            reasons as two tasks.
        per_prompt: answers to each prompt.
        refusals: answers that decline are dropped unless declining is right in this data.
    """

    model: ModelRef = "teacher"
    instruction: Annotated[str | None, ReadsFile] = None
    examples: LabelExamples | None = None
    domain: Annotated[str | None, ReadsFile] = None
    rationale: Rationale = "none"
    per_prompt: int = Field(default=1, gt=0)
    temperature: float = Field(default=0.7, ge=0)
    max_new_tokens: int = Field(default=512, gt=0)
    max_prompt_tokens: int = Field(default=4096, gt=0)
    refusals: Literal["drop", "keep"] = "drop"

    def hashed_by_name_alone(self) -> Container[str]:
        """See `Section`."""
        return ("domain",) if self.domain in DOMAINS else ()


class Selection(Section):
    """Which answers become demonstrations.

    Attributes:
        keep: `judge`: the best one of each prompt, or all graded `at_least`. `agreement`: the first one with the answer that most
            have. `function`: all different ones that your function accepts.
        at_least: the lowest grade of a `judge`; the lowest value of a `function` (by default 1, so that it may return true and
            false); the smallest share of the answers that must agree (by default 0.5).
        function: `(prompt: str, responses: list[str]) -> list[float]`, or booleans.
        answer: a regular expression for the final answer, which is compared for `agreement`: the first group of its last match.
    """

    keep: Literal["all", "judge", "agreement", "function"] = "all"
    at_least: float | None = None
    function: PluginName | None = None
    answer: str | None = None

    @field_validator("answer")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"this is not a regular expression: {error}") from None
        return value


class Labels(LabelRequest, Selection):
    """Demonstrations that a model writes: its answers to the training prompts, of which some are kept.

    Attributes:
        rationale_weight: with `rationale: task`, the weight of the reasons' mean loss per token; the answers' has the rest.
        judge: for `keep: judge`; by default the run's.
        hint_on_failure: prompts of which the function accepts no answer are asked again with the answer of `references` as a hint
            (STaR). The hint is not in the student's row.
        references: demonstrations with the right answers, for the hints.
        revise: answers are criticised and revised; with `keep: judge` or `function` the revision joins them, else it replaces its
            original.
    """

    rationale_weight: float = Field(default=0.5, gt=0, lt=1)
    judge: Judge | None = None
    hint_on_failure: bool = False
    references: Source | None = None
    revise: Revise | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> "Labels":
        if self.keep == "function" and self.function is None:
            raise ValueError("keep: function needs 'function', as in package.module:name")
        if self.function is not None and self.keep != "function":
            raise ValueError("'function' is used with keep: function only: set that, or remove it")
        if self.judge is not None and self.keep != "judge":
            raise ValueError("'judge' is used with keep: judge only: set that, or remove it")
        if self.answer is not None and self.keep != "agreement":
            raise ValueError("'answer' is used with keep: agreement only: set that, or remove it")
        if self.at_least is not None and self.keep == "all":
            raise ValueError("'at_least' has no effect with keep: all: remove it")
        if self.keep == "agreement" and self.per_prompt < 3:
            raise ValueError("keep: agreement is a vote of several answers: set per_prompt to 3 or more")
        if self.keep == "agreement" and self.at_least is not None and not 0 < self.at_least <= 1:
            raise ValueError("with keep: agreement, 'at_least' is a share of the answers, above 0 and at most 1")
        if self.per_prompt > 1 and self.temperature == 0:
            raise ValueError("at temperature 0 all answers to a prompt are the same: set per_prompt to 1, or a temperature")
        if self.hint_on_failure and (self.keep != "function" or self.references is None):
            raise ValueError("'hint_on_failure' needs keep: function, which says what failed, and 'references' with the answers")
        if self.references is not None and not self.hint_on_failure:
            raise ValueError("'references' is used for hints only: set hint_on_failure: true, or remove it")
        if self.rationale != "task" and self.rationale_weight != type(self).model_fields["rationale_weight"].default:
            raise ValueError("'rationale_weight' has an effect with rationale: task only: remove it")
        return self

    @property
    def request(self) -> LabelRequest:
        """What is asked, without what decides on the answers: another decision asks nothing again."""
        return LabelRequest.model_construct(**{name: getattr(self, name) for name in LabelRequest.model_fields})

    @property
    def selection(self) -> Selection:
        """What decides on the answers."""
        return Selection.model_construct(**{name: getattr(self, name) for name in Selection.model_fields})

    @property
    def revisions_replace(self) -> bool:
        """Whether a revision takes the place of its original, because nothing decides between the two."""
        return self.keep in ("all", "agreement")


class Labelled(Section):
    """Demonstrations that a model writes, in place of a file."""

    label: Labels


def _file_or_labels(value: Any) -> str:
    return "Labelled" if isinstance(value, Labelled) or (isinstance(value, dict) and "label" in value) else "Source"


class StartSft(Training):
    """Supervised fine-tuning of the start: on demonstrations from a file, or on answers that a model writes.

    Attributes:
        filters: which demonstrations of a file are kept.
    """

    demonstrations: Annotated[
        Annotated[Source, Tag("Source")] | Annotated[Labelled, Tag("Labelled")], Discriminator(_file_or_labels)
    ]
    filters: Annotated[Filters | None, NotHashed] = None  # by the stage that trains; its demonstrations are hashed instead

    @property
    def label(self) -> Labels | None:
        """How the demonstrations are written; None if they are read from a file."""
        return self.demonstrations.label if isinstance(self.demonstrations, Labelled) else None
