"""Tokenised training examples on disk: written once, then read a batch at a time by every process, student and resumed run.

A Python list of ids takes about 28 bytes per token in every process; the memory-mapped file takes 4, shared by all processes.
"""

import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, overload

from pydantic import BaseModel, ValidationError

from aligndistill.models.conversation import Conversation
from aligndistill.models.groups import TokenGroup
from aligndistill.models.tokenise import Limits, PromptWithResponses, tokenise_one
from aligndistill.store.artifacts import content_fingerprint
from aligndistill.training.offline.examples import Example, Mismatched

Item = TypeVar("Item", covariant=True)

ROWS, COUNTS = "rows.arrow", "counts.json"

CONVERSATION_VERSION = 2
"""Raised when `Conversation` turns the same text into other ids."""


@dataclass(frozen=True)
class ScoredResponses:
    """A prompt with ranked responses, best first, and their scores."""

    exchange: PromptWithResponses
    scores: Sequence[float]


class OnDiskSequence(Sequence[Item]):
    """A sequence whose items are read from disk at each access; a slice is a list."""

    @abstractmethod
    def item(self, index: int) -> Item:
        """Read one item."""

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        return [self.item(i) for i in range(*index.indices(len(self)))] if isinstance(index, slice) else self.item(index)


@dataclass(frozen=True)
class Subset(OnDiskSequence[Item]):
    """A view of some items of a sequence, without copying."""

    items: Sequence[Item]
    places: Sequence[int]

    def __len__(self) -> int:
        return len(self.places)

    def item(self, index: int) -> Item:
        """The item at this place of the subset."""
        return self.items[self.places[index]]


class FileCounts(BaseModel):
    """The metadata of a file.

    Attributes:
        size_bytes: size of the rows, to detect an incomplete file.
        too_long, responses_cut: the numbers of dropped prompts and of truncated responses (see `tokenise_one`).
    """

    size_bytes: int
    too_long: int
    responses_cut: int


@dataclass(frozen=True)
class StoredExamples(OnDiskSequence[Example]):
    """Examples read from a file.

    Attributes:
        rows: the file, as a `datasets.Dataset`.
        reference: for each example, the reference policy's summed log-probs, nats; None for objectives without one.
        mismatched: for each example, for objectives with a baseline.
    """

    counts: FileCounts
    rows: Any = field(repr=False)
    reference: Sequence[list[float]] | None = None
    mismatched: Sequence[Mismatched] | None = None

    @property
    def dropped(self) -> dict[str, int]:
        """The number of examples that tokenising dropped, by reason, for a manifest."""
        return {"prompt too long": self.counts.too_long} if self.counts.too_long else {}

    @property
    def cut(self) -> dict[str, int]:
        """The number of responses that tokenising truncated, for a manifest."""
        return {"responses_cut": self.counts.responses_cut} if self.counts.responses_cut else {}

    @property
    def groups(self) -> Sequence[TokenGroup]:
        """The token groups of the examples."""
        return _Groups(self)

    def with_reference(self, reference: Sequence[list[float]], mismatched: Sequence[Mismatched] | None = None) -> "StoredExamples":
        """The same examples with these log-probs."""
        return replace(self, reference=reference, mismatched=mismatched)

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, index: int) -> Example:
        """Read from the file."""
        row = self.rows[index]
        reference = None if self.reference is None else self.reference[index]
        mismatched = None if self.mismatched is None else self.mismatched[index]
        return Example(TokenGroup(row["prompt"], row["responses"]), row["scores"], reference, mismatched)


@dataclass(frozen=True)
class _Groups(OnDiskSequence[TokenGroup]):
    examples: StoredExamples

    def __len__(self) -> int:
        return len(self.examples)

    def item(self, index: int) -> TokenGroup:
        return self.examples.item(index).group


def conversation_fingerprint(conversation: Conversation) -> str:
    """An identity of everything that decides which ids a text becomes."""
    with tempfile.TemporaryDirectory() as folder:
        conversation.tokenizer.save_pretrained(folder)
        tokenizer = content_fingerprint(Path(folder))
    return f"{tokenizer} {conversation.layout} {sorted(conversation.eos_ids)} {CONVERSATION_VERSION}"


def write_examples(
    path: Path, scratch: Path, conversation: Conversation, limits: Limits, exchanges: Iterable[ScoredResponses]
) -> None:
    """Tokenise exchanges into a new folder, which is written atomically.

    Args:
        path: the final folder. If another process was faster, its folder is kept; an incomplete folder is replaced.
        scratch: a temporary folder on the same file system; it is overwritten.
    """
    from datasets import Features, List, Value  # only here: importing it takes a second
    from datasets.arrow_writer import ArrowWriter

    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    ids = List(Value("int32"))
    features = Features({"prompt": ids, "responses": List(ids), "scores": List(Value("float64"))})
    too_long = responses_cut = 0
    with ArrowWriter(features=features, path=str(scratch / ROWS)) as writer:
        for one in exchanges:
            tokenised = tokenise_one(conversation, one.exchange, limits)
            if tokenised is None:
                too_long += 1
                continue
            responses_cut += tokenised.responses_cut
            group = tokenised.group
            writer.write({"prompt": group.prompt, "responses": group.responses, "scores": list(one.scores)})
        writer.finalize()
    counts = FileCounts(size_bytes=(scratch / ROWS).stat().st_size, too_long=too_long, responses_cut=responses_cut)
    (scratch / COUNTS).write_text(counts.model_dump_json())
    if path.is_dir() and read_examples(path) is None:
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        scratch.rename(path)
    except OSError:
        if read_examples(path) is None:
            raise


def read_examples(path: Path) -> StoredExamples | None:
    """The examples that `write_examples` wrote; None if the folder is missing or incomplete."""
    from datasets import Dataset  # only here: importing it takes a second

    try:
        counts = FileCounts.model_validate_json((path / COUNTS).read_bytes())
        if (path / ROWS).stat().st_size != counts.size_bytes:
            return None
    except (FileNotFoundError, ValidationError):
        return None
    return StoredExamples(counts, Dataset.from_file(str(path / ROWS)))
