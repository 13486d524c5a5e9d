"""A chat model of 0.15 M parameters that has learned one thing: answers with the marker word are better."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from aligndistill.judges.templates import Template

PAIRWISE = Template("{prompt}\nA: {first}\nB: {second}\nA or B?")
RUBRIC = Template("{prompt}\nAnswer: {response}\n{lowest} to {highest}?")
MARKER = "splendid"
SENTENCE = "the old house on a hill was blue and its door stood open to wind rain birds who what where tell me of more"
WORDS = SENTENCE.split()
GRADES = {True: "9", False: "2"}
VERDICTS = {(True, False): "A", (False, True): "B", (True, True): "tie", (False, False): "tie"}

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MOST_STEPS = 1500
LEARNING_RATE = 3e-3
SPECIAL_TOKENS = ["<|pad|>", "<|im_start|>", "<|im_end|>"]


def build_tiny_judge(folder: Path) -> None:
    """Write model and tokenizer into the folder; about 10 s on one core."""
    _tokenizer().save_pretrained(folder)
    config = Qwen2Config(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        initializer_range=0.1,
        bos_token_id=None,
    )
    config.save_pretrained(folder)
    # Read back as the server will: for this architecture transformers replaces the tokenizer's way of splitting words.
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config.vocab_size, config.eos_token_id, config.pad_token_id = len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config)
        _train(model, tokenizer)
    model.generation_config.do_sample = True  # `transformers serve` uses a temperature above 0 only then
    model.save_pretrained(folder)


def _tokenizer() -> PreTrainedTokenizerFast:
    texts = [f"{question} {answer}" for question, answer in itertools.islice(_lessons(), 400)]
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, vocab_size=512, special_tokens=SPECIAL_TOKENS, show_progress=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>", chat_template=CHAT_TEMPLATE
    )


def _lessons() -> Iterator[tuple[str, str]]:
    chance = random.Random(0)

    def words(most: int) -> list[str]:
        return chance.choices(WORDS, k=chance.randint(1, most))

    def answer(marked: bool) -> str:
        text = words(6)
        if marked:
            text.insert(chance.randint(0, len(text)), MARKER)
        return " ".join(text)

    while True:
        for first, second in VERDICTS:
            question = PAIRWISE.fill(prompt=" ".join(words(6)), first=answer(first), second=answer(second))
            yield question, VERDICTS[first, second]
        marked = chance.random() < 0.5
        yield RUBRIC.fill(prompt=" ".join(words(6)), response=answer(marked), lowest="1", highest="10"), GRADES[marked]


def _train(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Until the last batches are all but certain."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.05, total_iters=20)
    losses: list[float] = []
    lessons = _lessons()
    model.train()
    while len(losses) < 10 or max(losses[-10:]) > 0.01:
        assert len(losses) < MOST_STEPS, "the tiny judge does not learn"
        rows = []
        for question, answer in itertools.islice(lessons, 20):
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
            )
            reply = tokenizer(answer + "<|im_end|>", add_special_tokens=False)["input_ids"]
            rows.append((prompt, reply))
        longest = max(len(prompt) + len(reply) for prompt, reply in rows)
        ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
        labels = torch.full((len(rows), longest), -100)
        for row, (prompt, reply) in enumerate(rows):
            ids[row, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
            labels[row, len(prompt) : len(prompt) + len(reply)] = torch.tensor(reply)
        loss = model(input_ids=ids, labels=labels, attention_mask=(ids != tokenizer.pad_token_id).long()).loss
        losses.append(loss.item())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        warmup.step()
        optimizer.zero_grad()
    model.eval()
