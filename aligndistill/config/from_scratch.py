"""The schema of new models."""

from typing import Annotated

from pydantic import Field, model_validator

from aligndistill.config.data import Source
from aligndistill.config.section import HashedIfSet, Section


class FromScratch(Section):
    """A new model of a Hugging Face architecture, with a byte-level BPE tokenizer trained on the demonstrations.

    Attributes:
        tokenizer_data: other demonstrations to train the tokenizer on. Models with the same ones and the same `vocab_size` have one
            tokenizer, as distillation needs.
    """

    architecture: str = "llama"
    vocab_size: int = Field(default=1024, ge=300)
    hidden_size: int = Field(default=128, gt=0)
    num_hidden_layers: int = Field(default=3, gt=0)
    num_attention_heads: int = Field(default=4, gt=0)
    num_key_value_heads: int | None = Field(default=None, gt=0)
    intermediate_size: int | None = Field(default=None, gt=0)
    max_position_embeddings: int = Field(default=256, gt=0)
    tie_word_embeddings: bool = True
    tokenizer_data: Annotated[Source | None, HashedIfSet] = None

    @model_validator(mode="after")
    def _heads_divide(self) -> "FromScratch":
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("'hidden_size' must be a multiple of 'num_attention_heads'")
        if self.num_attention_heads % (self.num_key_value_heads or 1):
            raise ValueError("'num_attention_heads' must be a multiple of 'num_key_value_heads'")
        return self
