"""Model families by their chat templates (tests/models/chat_templates), each with a tiny tokenizer that has its control tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trl

from aligndistill.models.from_scratch import train_tokenizer
from tests.tiny_models import TEXTS

TEMPLATES = Path(__file__).parent / "chat_templates"
ORIGINALS = Path(trl.__file__).parent / "chat_templates"

CHATML = ("<|im_start|>", "<|im_end|>")
LLAMA = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
GEMMA = ("<bos>", "<start_of_turn>", "<end_of_turn>")
GEMMA_4 = ("<bos>", "<|turn>", "<turn|>", "<|think|>", "<|channel>", "<channel|>")
MISTRAL = ("<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")
HARMONY = ("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>")
GLM = ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>", "<|endoftext|>")
DEEPSEEK = ("<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>")
THINK = ("<think>", "</think>")


@dataclass(frozen=True)
class Family:
    """A family.

    Attributes:
        special: its special tokens.
        end: the token that ends an answer; empty if its template writes none.
        off: what the prompt ends with behind the user's text when the model does not think; empty if that cannot be had.
        added: tokens that are not special, as `<think>` of Qwen3 is.
        bos: the special token that begins a prompt.
        on: what the prompt ends with when it thinks; None if that is the same.
        original: TRL's file.
    """

    special: tuple[str, ...]
    end: str
    off: str
    added: tuple[str, ...] = ()
    bos: str = ""
    on: str | None = None
    original: str = ""


IM = "<|im_end|>\n<|im_start|>assistant\n"
LLAMA_TAIL = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
GEMMA_TAIL = "<end_of_turn>\n<start_of_turn>model\n"
EMPTY = "<think>\n\n</think>\n\n"

FAMILIES: Mapping[str, Family] = {
    "qwen2_5": Family(CHATML, "<|im_end|>", IM, original="qwen2_5"),
    "qwen3": Family(CHATML, "<|im_end|>", IM + EMPTY, THINK, on=IM, original="qwen3"),
    "qwen3_thinking": Family(CHATML, "<|im_end|>", IM + EMPTY, THINK, on=IM + "<think>\n"),
    "qwen3_5": Family(CHATML, "<|im_end|>", IM + EMPTY, THINK, on=IM + "<think>\n", original="qwen3_5_think"),
    "llama3_1": Family(LLAMA, "<|eot_id|>", LLAMA_TAIL, bos=LLAMA[0], original="llama3_1"),
    "llama3_2": Family(LLAMA, "<|eot_id|>", LLAMA_TAIL, bos=LLAMA[0], original="llama3_2"),
    "gemma2": Family(GEMMA, "<end_of_turn>", GEMMA_TAIL, bos="<bos>", original="gemma"),
    "gemma3": Family(GEMMA, "<end_of_turn>", GEMMA_TAIL, bos="<bos>", original="gemma3"),
    "gemma4": Family(
        GEMMA_4, "<turn|>", "<turn|>\n<|turn>model\n", bos="<bos>", on="<turn|>\n<|turn>model\n", original="gemma4_v5"
    ),
    "gemma4_31b": Family(
        GEMMA_4,
        "<turn|>",
        "<turn|>\n<|turn>model\n<|channel>thought\n<channel|>",
        bos="<bos>",
        on="<turn|>\n<|turn>model\n",
    ),
    "mistral_small_3_2": Family(MISTRAL, "</s>", "[/INST]", bos="<s>"),
    "gpt_oss": Family(
        HARMONY,
        "<|return|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
        on="<|end|><|start|>assistant",
        original="gptoss",
    ),
    "glm_4_6": Family(GLM, "", "/nothink<|assistant|>\n<think></think>", THINK, on="<|assistant|>", original="glm4moe"),
    "deepseek_r1_distill": Family(
        DEEPSEEK, DEEPSEEK[3], "", THINK, bos=DEEPSEEK[0], on="<｜Assistant｜><think>\n", original="deepseek_r1_distill"
    ),
    "nemotron_3": Family(CHATML, "<|im_end|>", IM + "<think></think>", THINK, on=IM + "<think>\n", original="nemotron_3_nano"),
    "smollm3": Family(CHATML, "<|im_end|>", IM + "<think>\n\n</think>\n", THINK, on=IM),
}


def template_of(family: str) -> str:
    return (TEMPLATES / f"{family}.jinja").read_text(encoding="utf-8")


def tokenizer_of(family: str) -> Any:
    """A tokenizer of the family's form, with its own template, that a test may change."""
    about = FAMILIES[family]
    tokenizer = train_tokenizer(TEXTS, 320, 64)
    tokenizer.add_tokens(list(about.special), special_tokens=True)
    tokenizer.add_tokens(list(about.added))
    tokenizer.bos_token = about.bos or None
    tokenizer.eos_token = about.end or about.special[-1]
    tokenizer.chat_template = template_of(family)
    return tokenizer
