"""Training rows as token ids on disk: tokenised once, then read a batch at a time by every process, student and resumed run.

A Python list of ids takes about 28 bytes a token, in every process; the file takes 4, in memory that processes share.
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
from aligndistill.training.offline.examples import Example

Item = TypeVar("Item", covariant=True)

ROWS, COUNTS = "rows.arrow", "counts.json"


@dataclass(frozen=True)
class ScoredResponses:
    """A prompt with ranked responses, best first, and their scores."""

    exchange: PromptWithResponses
    scores: Sequence[float]


class OnDiskSequence(Sequence[Item]):
    """Items are read when they are asked for, each time; a slice is a list of them."""

    @abstractmethod
    def item(self, index: int) -> Item:
        """Read one."""

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        return [self.item(i) for i in range(*index.indices(len(self)))] if isinstance(index, slice) else self.item(index)


@dataclass(frozen=True)
class Subset(OnDiskSequence[Item]):
    """Some items of a sequence, which are not copied."""

    items: Sequence[Item]
    places: Sequence[int]

    def __len__(self) -> int:
        return len(self.places)

    def item(self, index: int) -> Item:
        """That of its place."""
        return self.items[self.places[index]]


class FileCounts(BaseModel):
    """What is said of a file.

    Attributes:
        size_bytes: of the rows, to tell whether they are whole.
        too_long, responses_cut: prompts that were left out, and responses that were cut (see `tokenise_one`).
    """

    size_bytes: int
    too_long: int
    responses_cut: int


@dataclass(frozen=True)
class StoredExamples(OnDiskSequence[Example]):
    """Examples in a file.

    Attributes:
        rows: the file, as a `datasets.Dataset`.
        reference: for each example, the reference policy's summed log-probs, nats; None for objectives without one.
    """

    counts: FileCounts
    rows: Any = field(repr=False)
    reference: Sequence[list[float]] | None = None

    @property
    def dropped(self) -> dict[str, int]:
        """What tokenising left out, by reason, for a manifest."""
        return {"prompt too long": self.counts.too_long} if self.counts.too_long else {}

    @property
    def cut(self) -> dict[str, int]:
        """How many responses tokenising cut, for a manifest."""
        return {"responses_cut": self.counts.responses_cut} if self.counts.responses_cut else {}

    @property
    def groups(self) -> Sequence[TokenGroup]:
        """The examples' tokens alone."""
        return _Groups(self)

    def with_reference(self, reference: Sequence[list[float]]) -> "StoredExamples":
        """The same examples with these log-probs."""
        return replace(self, reference=reference)

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, index: int) -> Example:
        """Read from the file."""
        row = self.rows[index]
        reference = None if self.reference is None else self.reference[index]
        return Example(TokenGroup(row["prompt"], row["responses"]), row["scores"], reference)


@dataclass(frozen=True)
class _Groups(OnDiskSequence[TokenGroup]):
    examples: StoredExamples

    def __len__(self) -> int:
        return len(self.examples)

    def item(self, index: int) -> TokenGroup:
        return self.examples.item(index).group


def conversation_fingerprint(conversation: Conversation) -> str:
    """Of everything that decides which ids a text becomes."""
    with tempfile.TemporaryDirectory() as folder:
        conversation.tokenizer.save_pretrained(folder)
        tokenizer = content_fingerprint(Path(folder))
    return f"{tokenizer} {conversation.layout} {sorted(conversation.eos_ids)}"


def write_examples(
    path: Path, scratch: Path, conversation: Conversation, limits: Limits, exchanges: Iterable[ScoredResponses]
) -> None:
    """Tokenise exchanges into a new folder, which appears whole or not at all.

    Args:
        path: where it appears. If another process was faster, its folder stays; one that is not whole goes.
        scratch: where it is made, on the same file system; what is there is overwritten.
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
    """What `write_examples` wrote; None where that is not there, or not whole."""
    from datasets import Dataset  # only here: importing it takes a second

    try:
        counts = FileCounts.model_validate_json((path / COUNTS).read_bytes())
        if (path / ROWS).stat().st_size != counts.size_bytes:
            return None
    except (FileNotFoundError, ValidationError):
        return None
    return StoredExamples(counts, Dataset.from_file(str(path / ROWS)))
