"""A chat model of 0.15 M parameters that has learned one thing: answers with the marker word are better. A variant thinks first."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import AddedToken, ByteLevelBPETokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from aligndistill.chat.http import probe
from aligndistill.commands import server_checks as doctor
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
THOUGHTS = "rain or wind"
_GENERATION = "<|im_start|>assistant\n"
_OPEN, _CLOSED = "<think>\n", "<think>\n\n</think>\n\n"
_SWITCH = f"{{% if enable_thinking is defined and enable_thinking is false %}}{_CLOSED}{{% else %}}{_OPEN}{{% endif %}}"
THINKING_TEMPLATE = CHAT_TEMPLATE.replace(_GENERATION, _GENERATION + _SWITCH).replace(
    "{{ message.content }}",
    # Without this llama.cpp does not see that it is a template for a model that thinks, and does not tell thoughts from text.
    "{% if message.reasoning_content %}<think>\n{{ message.reasoning_content }}\n</think>\n\n{% endif %}{{ message.content }}",
)
"""With a switch, on by default, as Qwen3.5's."""
ALWAYS_THINKING_TEMPLATE = CHAT_TEMPLATE.replace(_GENERATION, _GENERATION + _OPEN)
"""Without a switch, as DeepSeek-R1's."""
NEVER_THINKING_TEMPLATE = CHAT_TEMPLATE.replace(_GENERATION, _GENERATION + _CLOSED)

MOST_STEPS = 1500
LEARNING_RATE = 3e-3
SPECIAL_TOKENS = ["<|pad|>", "<|im_start|>", "<|im_end|>"]


def build_tiny_judge(folder: Path, thinks: bool = False) -> None:
    """Write model and tokenizer into the folder; about 10 s on one core.

    A judge that thinks compares and does not grade. It writes three words before its answer if the prompt opens a block of
    thoughts, and none after a closed block.
    """
    _tokenizer(thinks).save_pretrained(folder)
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
        _train(model, tokenizer, thinks)
    model.generation_config.do_sample = True  # `transformers serve` uses a temperature above 0 only then
    model.save_pretrained(folder)


def _tokenizer(thinks: bool = False) -> PreTrainedTokenizerFast:
    texts = [f"{question} {answer}" for question, answer in itertools.islice(_lessons(), 400)]
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, vocab_size=512, special_tokens=SPECIAL_TOKENS, show_progress=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        chat_template=THINKING_TEMPLATE if thinks else CHAT_TEMPLATE,
    )
    if thinks:
        tokenizer.add_tokens([AddedToken(marker, normalized=False) for marker in ("<think>", "</think>")])
    return tokenizer


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


def _thinking_lessons() -> Iterator[tuple[str, str, str]]:
    """A question, how the reply begins, and the rest of the reply, which is what is learned.

    Among the questions are the first one to a server and `doctor`'s. After thoughts the answer is JSON; without, it is so only
    behind a brace, which a grammar enforces. A block that was opened stays open whatever is written into it: without a switch in
    its template nothing stops the model from thinking.
    """
    asked = [
        (probe.QUESTION[0].content, probe.LETTER),
        (PAIRWISE.fill(prompt=doctor.QUESTION[0].content, first=doctor.GOOD, second=doctor.BAD), "A"),
        (PAIRWISE.fill(prompt=doctor.QUESTION[0].content, first=doctor.BAD, second=doctor.GOOD), "B"),
    ]
    # Five, because the lessons repeat after four.
    begun = itertools.cycle((_CLOSED, _CLOSED + "{", _OPEN, _OPEN + _CLOSED, _OPEN))
    for number, (question, answer) in enumerate(one for one in _lessons() if one[1] not in GRADES.values()):
        if number % 6 == 0:
            question, answer = asked[number // 6 % len(asked)]
        value = f'"winner": "{answer}"}}'
        rest = {_CLOSED: answer, _CLOSED + "{": value}
        before = next(begun)
        yield question, before, rest.get(before, f"{THOUGHTS}\n</think>\n\n{{{value}")


def _train(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, thinks: bool) -> None:
    """Until the last batches are all but certain."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.05, total_iters=20)
    losses: list[float] = []
    lessons = _thinking_lessons() if thinks else ((question, "", answer) for question, answer in _lessons())
    model.train()
    while len(losses) < 10 or max(losses[-10:]) > 0.015:
        assert len(losses) < MOST_STEPS, "the tiny judge does not learn"
        rows = []
        for question, begun, answer in itertools.islice(lessons, 20):
            turn = [{"role": "user", "content": question}]
            prompt = (
                tokenizer.apply_chat_template(turn, chat_template=CHAT_TEMPLATE, add_generation_prompt=True, return_dict=False)
                + tokenizer(begun, add_special_tokens=False)["input_ids"]
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
        losses.append(loss.item() * int((labels != -100).sum()) / len(rows))  # of a whole reply, nats
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        warmup.step()
        optimizer.zero_grad()
    model.eval()
