"""Whether two tokenizers give the same ids to the same tokens: what a distribution over ids can be compared by.

Models of one family may still differ in width: Qwen2.5 has 151,936 logits up to 3B parameters and 152,064 from 7B on, for one
tokenizer of 151,665 tokens. The surplus is cut off. An equal width, on the other hand, says nothing about the tokens.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligndistill.errors import ConfigError
from aligndistill.models.folder import read_json

if TYPE_CHECKING:  # `check` compares tokenizers without torch
    from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """The tokens of the model at a path, by their ids."""

    path: str
    by_id: Mapping[int, str]


@dataclass(frozen=True)
class SharedVocabulary:
    """Two vocabularies in which every id that both have is the same token.

    Attributes:
        unshared: the ids that only one of them has.
    """

    unshared: frozenset[int]

    def cut(self, one_SV: "Tensor", other_SV: "Tensor") -> "tuple[Tensor, Tensor]":
        """The logits of two models over what both can say."""
        width = min(one_SV.shape[-1], other_SV.shape[-1])
        return self.restricted(one_SV, width), self.restricted(other_SV, width)

    def restricted(self, logits_SV: "Tensor", width: int) -> "Tensor":
        """Logits of the first `width` ids, with -inf for those that only one tokenizer has."""
        import torch

        cut_SV = logits_SV[:, :width]
        masked = sorted(id for id in self.unshared if id < width)
        return cut_SV.index_fill(-1, cut_SV.new_tensor(masked, dtype=torch.long), -math.inf) if masked else cut_SV

    def first_unshared(self, ids: Iterable[int]) -> int | None:
        """The first of these ids that only one of the two has; None if there is none."""
        return next((id for id in ids if id in self.unshared), None) if self.unshared else None


def shared_vocabulary(student: Tokens, teacher: Tokens) -> SharedVocabulary:
    """Compare the vocabularies of a student and its teacher.

    Raises:
        ConfigError: an id is not the same token in both; the message names the first.
    """
    for id in sorted(student.by_id.keys() & teacher.by_id.keys()):
        if student.by_id[id] != teacher.by_id[id]:
            raise ConfigError(
                f"the teacher has another tokenizer than the student: id {id} is {teacher.by_id[id]!r} in '{teacher.path}' and "
                f"{student.by_id[id]!r} in '{student.path}'. Distillation compares the probabilities of both models id by id: take "
                "a teacher with the student's tokenizer, such as a larger model of its family, or an objective without a teacher."
            )
    return SharedVocabulary(frozenset(student.by_id.keys() ^ teacher.by_id.keys()))


def tokens_of(path: str, tokenizer: Any) -> Tokens:
    """Every token of the Hugging Face tokenizer at a path, added ones among them."""
    return Tokens(path, {int(id): str(token) for token, id in tokenizer.get_vocab().items()})


def tokens_in(folder: Path) -> Tokens | None:
    """The same of a model folder, read from its `tokenizer.json` alone; None if it has none."""
    content = read_json(folder / "tokenizer.json")
    words = content.get("model", {}).get("vocab")
    if not words:
        return None
    by_id = {id: token for token, id in words.items()} if isinstance(words, dict) else dict(enumerate(one[0] for one in words))
    return Tokens(str(folder), by_id | {one["id"]: one["content"] for one in content.get("added_tokens", [])})
