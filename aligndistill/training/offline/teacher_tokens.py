"""A teacher's likeliest tokens on disk: written once by any number of processes, read with the examples that they belong to.

A token takes 8 k + 4 bytes: int32 ids, float32 log-probabilities, and the log of the probability of all other tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from aligndistill.errors import DataError
from aligndistill.models.scoring import GroupTopK
from aligndistill.objectives.divergences import TopK
from aligndistill.training.offline.examples import Collator, Example, MicroBatch
from aligndistill.training.offline.token_dataset import OnDiskSequence, StoredExamples

ABOUT, ROWS = "teacher_tokens.json", "teacher_tokens.arrow"

ROWS_IN_MEMORY = 64
"""Rows are written this many at a time: one of 500 tokens and k = 64 takes a quarter of a megabyte."""


class TeacherTokensInfo(BaseModel):
    """What the stored tokens hold for.

    Attributes:
        width: ids below this were compared.
        unshared: ids that only one of the two tokenizers has; they count as impossible.
        positions: the longest rows of both models; None if neither says it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int
    unshared: tuple[int, ...]
    positions: int | None


@dataclass(frozen=True)
class KnownExample(Example):
    """An example with a teacher's likeliest tokens at each response token."""

    known: TopK | None = None


@dataclass(frozen=True)
class KnownExamples(OnDiskSequence[Example]):
    """Examples with what is stored of their teacher.

    Attributes:
        shards: the files, as `datasets.Dataset`s of tensors.
        places: for each example, the shard and the row in it.
    """

    examples: StoredExamples
    shards: Sequence[Any] = field(repr=False)
    places: Sequence[tuple[int, int]] = field(repr=False)

    def __len__(self) -> int:
        return len(self.examples)

    def item(self, index: int) -> Example:
        """Read from the files."""
        one = self.examples.item(index)
        shard, row = self.places[index]
        stored = self.shards[shard][row]
        tail_S = stored["tail"]
        if len(tail_S) != sum(map(len, one.group.responses)):
            raise DataError("the teacher's stored tokens are not those of the training examples: delete the stage's folder.")
        ids_Sk, logps_Sk = (stored[name].view(len(tail_S), -1) for name in ("ids", "logps"))
        return KnownExample(one.group, one.scores, one.reference, known=TopK(ids_Sk, logps_Sk, tail_S))


@dataclass(frozen=True)
class KnownCollator(Collator):
    """Also collates what is known of the teacher, in the order of the response tokens."""

    def __call__(self, examples: Sequence[Example]) -> MicroBatch:
        """Pad and stack."""
        tensors = super().__call__(examples)
        known = [one.known for one in examples if isinstance(one, KnownExample) and one.known is not None]
        tensors["known_ids_Sk"] = torch.cat([one.ids_Sk for one in known])
        tensors["known_logps_Sk"] = torch.cat([one.logps_Sk for one in known])
        tensors["known_tail_S"] = torch.cat([one.log_tail_S for one in known])
        return tensors


def write_teacher_tokens(path: Path, scratch: Path, rows: Iterable[GroupTopK]) -> None:
    """Write a file with one row per group, in any order; it appears when it is complete.

    Args:
        scratch: a temporary file on the same file system; it is overwritten.
    """
    from datasets import Features, List, Value  # only here: importing it takes a second
    from datasets.arrow_writer import ArrowWriter

    numbers = List(Value("float32"))
    features = Features({"index": Value("int64"), "ids": List(Value("int32")), "logps": numbers, "tail": numbers})
    with ArrowWriter(features=features, path=str(scratch), writer_batch_size=ROWS_IN_MEMORY) as writer:
        for row in rows:
            ids, logps = row.ids_Sk.flatten().int().numpy(), row.logps_Sk.flatten().numpy()
            writer.write({"index": row.index, "ids": ids, "logps": logps, "tail": row.log_tail_S.numpy()})
        writer.finalize()
    scratch.rename(path)


def read_teacher_tokens(paths: Sequence[Path], examples: StoredExamples) -> KnownExamples:
    """The examples with what was stored of their teacher in these files."""
    from datasets import Dataset  # only here: importing it takes a second

    shards = [Dataset.from_file(str(path)) for path in paths]
    places = {index: (number, row) for number, shard in enumerate(shards) for row, index in enumerate(shard["index"])}
    if places.keys() != set(range(len(examples))):
        raise DataError(
            f"the teacher's stored tokens are of {len(places)} examples, not of {len(examples)}: delete the stage's folder."
        )
    tensors = [shard.with_format("torch") for shard in shards]
    return KnownExamples(examples, tensors, [places[index] for index in range(len(examples))])
