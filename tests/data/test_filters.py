import random
from collections.abc import Iterable

import pytest

from aligndistill.config.filters import Balance, Filters
from aligndistill.data.filters import Decisions, Drop, Row, balance, decide, is_cut_off, is_self_reference, row_of
from aligndistill.data.overlap import units
from aligndistill.records import Demonstration, Message, Prompt, Ranking, Response, Split, prompt_id


def prompts(texts: Iterable[str], split: Split = "train") -> list[Row]:
    return [Row(prompt_id((Message(role="user", content=text),)), split, text) for text in texts]


def reasons(rows: list[Row], evaluation: Iterable[tuple[str, str]] = (), **filters: object) -> dict[str, str]:
    """Prompt -> why it is dropped."""
    decisions = decide(rows, Filters.model_validate(filters), evaluation)
    return {row.prompt: drop.reason for row, drop in zip(rows, decisions, strict=True) if drop is not None}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Name three big rivers", 4),
        ("列出三条大河", 6),
        ("川を三つ挙げて", 7),
        ("print(sorted(x)[0])", 4),
    ],
)
def test_length_counts_units_of_any_script(text: str, count: int) -> None:
    rows = prompts([text])
    assert not reasons(rows, length=[count, count])
    assert reasons(rows, length=[count + 1, 150]) == {text: "too short"}
    assert decide(rows, Filters(length=(0, count - 1))) == [Drop("too long", score=count)]


@pytest.mark.parametrize(
    "text",
    [
        "As an AI by OpenAI, I like cats.",
        "I am a large language model, trained by Google.",
        "I'm Claude, and the answer is 4.",
        "My knowledge cutoff is 2023.",
        "作为一个人工智能语言模型，我没有感情。",
        "私はAIアシスタントです。",
        "AIとして、意見はありません。",
        "由深度求索公司开发的模型",
        "作为AI，我不能吃饭。",
        "Als KI-Modell habe ich keine Meinung.",
        "En tant qu'IA, je n'ai pas d'avis.",
        "Como modelo de lenguaje, no tengo opiniones.",
        "I was created by Anthropic.",
        "I am an artificial intelligence.",
        "I'm a chatbot.",
        "I am GPT-4.",
        "Based on my training data, yes.",
        "I was originally developed by Meta.",
        "I am created and trained by OpenAI.",
        "I'm Sydney, a friendly chat assistant that was made by Microsoft.",
        "As a helpful assistant trained by DeepSeek, I would say no.",
        "My name is Nova, built by Cohere.",
        "我是小助手，由百度公司研发。",
        "我由OpenAI训练。",
    ],
)
def test_self_references_are_found(text: str) -> None:
    assert is_self_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        "Explain how an AI is trained.",
        "OpenAI was founded in 2015.",
        "人工智能是什么？",
        "AIの歴史を説明して",
        "model = train(ai)",
        "I am a teacher.",
        "TensorFlow is an open-source library developed by Google.",
        "Windows is an operating system made by Microsoft.",
        "CUDA was created by NVIDIA in 2007.",
        "I am looking for a phone made by Google.",
        "As a small open model developed by Google, Gemma runs on a phone.",
        "The tests, as developed by Microsoft, are slow.",
        "谷歌浏览器是由谷歌开发的。",
        "BERT是由谷歌开发的语言模型。",
        "这篇文章由百度百科整理。",
    ],
)
def test_texts_about_models_are_no_self_references(text: str) -> None:
    assert not is_self_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        "The rivers are the Nile, the Amazon, and the",
        "First,",
        "三条大河是长江、黄河、",
        "三つの川は「",
        "```python\nx = 1",
        "x = f(",
        "It is 3 +",
        "Then he saw a",
        "The sum is 3 =",
        "It is one of the best that were",
        "He has a self-",
        "He left --",
        "He said (the",
        "Add 1/",
    ],
)
def test_cut_texts_are_found(text: str) -> None:
    assert is_cut_off(text)


@pytest.mark.parametrize(
    "text",
    [
        "Rivers:\n- Nile\n- Amazon",
        "Paris",
        "长江、黄河和珠江。",
        "大きい川です",
        "```python\nx = [1,\n```",
        "x = f(1)",
        "What is it?",
        "x++;\n}",
        "A",
        "a",
        "The answer is A",
        "Hepatitis A",
        "The gate is an OR",
        "C++",
        "A+",
        "His grade is A-",
        "It is at https://example.org/a/",
        "bot.run();",
        "Moon Jae-in",
        "One\n\n---",
    ],
)
def test_whole_texts_are_not_cut(text: str) -> None:
    assert not is_cut_off(text)


@pytest.mark.parametrize("text", ["Where are you from", "how dirty can you be", "yes it is", "12 * 7 =", "tell me what they are"])
def test_prompts_may_end_in_words_after_which_an_answer_is_cut(text: str) -> None:
    assert is_cut_off(text)
    prompt, answered = *prompts([text]), Row("a", "train", "Go on.", (text,))
    assert [drop and drop.reason for drop in decide([prompt, answered], Filters(cut_off=True))] == [None, "cut off"]


@pytest.mark.parametrize("text", ["Write a story about the", "Write about a cat and", "Compare these rivers: the Nile,"])
def test_prompts_that_are_cut_are_found(text: str) -> None:
    assert is_cut_off(text, is_prompt=True)


def test_answers_are_judged_by_their_best_and_prompts_by_themselves() -> None:
    messages = (Message(role="system", content="Be brief."), Message(role="user", content="What is a river?"))
    demonstration = Demonstration(prompt_id="p", split="train", messages=messages, response="I'm sorry, but I can't help.")
    good, bad = (
        Response(text=text, score=score, candidate_id=text) for text, score in (("Water.", 1.0), ("I can't help you.", 0.0))
    )
    ranking = Ranking(prompt_id="p", split="train", messages=messages, responses=(good, bad))
    worse = ranking.model_copy(update={"responses": (good.model_copy(update={"finish": "length"}), bad)})
    prompt = Prompt(id="p", messages=messages, source="seeds.jsonl row 3", split="train")
    rows = [row_of(one) for one in (demonstration, ranking, worse, prompt)]
    assert [row.prompt for row in rows] == ["What is a river?"] * 4  # the system's turn is none of a prompt's units
    assert rows[3].file == "seeds.jsonl"
    decisions = decide(rows, Filters(refusals=True, cut_off=True))
    assert [drop and drop.reason for drop in decisions] == ["refusal", None, "cut off", None]


def test_languages() -> None:
    texts = ["Was ist die Hauptstadt von Frankreich?", "What is the capital of France?", "法国的首都是哪里？", "x = [1, 2, 3]"]
    assert reasons(prompts(texts), language=["en", "zh"]) == {texts[0]: "another language"}
    answered = Row("a", "train", "What is the capital of France?", ("Es ist die Stadt Paris, und sie ist nicht klein.",))
    assert reasons([answered], language=["en"]) == {answered.prompt: "another language"}


SENTENCES = {
    "en": (
        "please write a short story about a {} who finds a golden key under the old bridge near the sea",
        "name all rivers of the north and say where each of them ends",
    ),
    "zh": ("请写一个关于{}在古老石桥下面找到一把金钥匙并且打开大门的短篇故事", "列出北方所有的河流并说明它们在哪里入海"),
    "ja": ("{}が古い橋の下で金の鍵を見つけて城の扉を開ける短い物語を書いてください", "北の川をすべて挙げてどこに流れるか説明して"),
    "code": (
        "def {}(items): total = 0; for item in items: total += item * 2 - 1; return total % 7",
        "print(sorted(names)[:3], len(a) > 2)",
    ),
}


@pytest.mark.parametrize("script", SENTENCES)
def test_near_duplicates_and_contained_prompts_of_any_script(script: str) -> None:
    sentence, held_out = SENTENCES[script]
    first, second = (sentence.format(name) for name in ("baker", "farmer"))
    leak, part = f"Translate this: {held_out}! Thank you", held_out[: len(held_out) // 3]
    found = reasons([*prompts([first, second, leak, part]), *prompts([held_out], "held_out")], duplicates=0.5)
    assert found.pop(leak) == "contains a held-out prompt"
    assert list(found.values()) == ["near duplicate"]
    assert found.keys() < {first, second}


def test_benchmark_items_are_found_and_named() -> None:
    item = "How many golf balls fit into a school bus of the usual size?"
    rows = prompts([f"Riddle. {item}", "How many golf balls are there?"])
    drops = decide(rows, Filters(), [("benchmark row 7", item)])
    assert drops == [Drop("contains an evaluation item", "benchmark row 7", 1.0), None]


def ranked(prompt: str, *answers: str) -> Row:
    responses = tuple(Response(text=text, score=-n, candidate_id=text) for n, text in enumerate(answers))
    return row_of(Ranking(prompt_id="x", split="train", messages=(Message(role="user", content=prompt),), responses=responses))


def answered(prompt: str, response: str, split: Split = "train") -> Row:
    messages = (Message(role="user", content=prompt),)
    return row_of(Demonstration(prompt_id=prompt_id(messages), split=split, messages=messages, response=response))


def test_short_items_are_compared_with_the_prompts_of_answered_rows() -> None:
    """Of fewer than 8 units, so the whole prompt must be the item; the answers behind it are none of it."""
    items = [("bench row 1", "What is the capital of France?"), ("bench row 2", "Who wrote the novel War and Peace?")]
    rows = [
        answered("What is the capital of France?", "Paris."),
        ranked("Who wrote the novel War and Peace?", "Leo Tolstoy.", "Anton Chekhov, in the year after he had been to sea."),
        answered("what is the capital of france", "It is Paris, a city of two million people on the Seine."),
        answered("What is the capital of France, and of Spain?", "Paris and Madrid."),
        answered("Who wrote the novel?", "No one."),
    ]
    found = [drop and (drop.reason, drop.nearest, drop.score) for drop in decide(rows, Filters(), items)]
    of_france, of_tolstoy = (("contains an evaluation item", f"bench row {row}", 1.0) for row in (1, 2))
    assert found == [of_france, of_tolstoy, of_france, None, None]
    settled = frozenset({rows[0].id})
    assert decide(rows, Filters(), items, settled=settled)[0] is None


@pytest.mark.parametrize("among_rows", [True, False])
def test_short_held_out_prompts_are_compared_with_the_prompts_of_answered_rows(among_rows: bool) -> None:
    held_out, leak = answered("What is 6 plus 7?", "13", "held_out"), answered("what is 6 plus 7", "13.")
    others = [answered("What is 6 plus 8?", "14."), answered("Ask me.", "What is 6 plus 7?")]
    if among_rows:
        drops = decide([held_out, leak, *others], Filters())
        assert drops == [None, Drop("contains a held-out prompt", held_out.id, 1.0), None, None]
    else:
        drops = decide([leak, *others], Filters(), (), [("6+7", held_out.prompt)])
        assert drops[0] == Drop("contains a held-out prompt", "6+7", 1.0)


def test_held_out_rows_stay_where_training_rows_repeat_them() -> None:
    """Whichever comes first, and whichever hash is smaller."""
    draw = random.Random(0)
    for _ in range(20):
        words = [f"w{draw.randrange(1000)}" for _ in range(30)]
        held_out = prompts([" ".join(words)], "held_out")
        train = prompts([" ".join(["new", *words[1:6], "other", *words[7:13], "third", *words[14:20], "fourth", *words[21:]])])
        rows = [*train, *held_out] if draw.random() < 0.5 else [*held_out, *train]
        decisions = dict(zip([row.split for row in rows], decide(rows, Filters(duplicates=0.4)), strict=True))
        assert decisions["held_out"] is None
        assert decisions["train"] is not None
        assert decisions["train"].reason == "near duplicate of a held-out row"
        assert decisions["train"].nearest == held_out[0].id


def test_the_order_of_the_rows_does_not_change_what_is_kept() -> None:
    draw = random.Random(1)
    texts = [" ".join(f"w{draw.randrange(6)}" for _ in range(draw.randrange(2, 16))) for _ in range(300)]
    rows = [*prompts(dict.fromkeys(texts[:250])), *prompts(dict.fromkeys(texts[250:]), "held_out")]
    filters = Filters(length=(3, 14), duplicates=0.5)

    def kept(rows: list[Row]) -> set[str]:
        decisions = decide(rows, filters)
        balance(rows, decisions, Balance(by="language", at_most=1.0))
        return {row.id for row, drop in zip(rows, decisions, strict=True) if drop is None}

    first = kept(rows)
    assert 20 < len(first) < 250
    for seed in range(5):
        assert kept(random.Random(seed).sample(rows, len(rows))) == first


def test_rows_without_filters_are_all_kept() -> None:
    rows = prompts(["", "a", "I cannot help.", "a b c d e f", "a b c d e g"])
    assert decide(rows, Filters()) == [None] * 5


@pytest.mark.parametrize(
    ("sizes", "share", "kept"),
    [
        ((50, 30, 20), 0.5, (50, 30, 20)),
        ((80, 10, 10), 0.5, (20, 10, 10)),  # 20 of 40
        ((80, 60, 10), 0.4, (20, 20, 10)),  # 20 of 50
        ((80, 60), 0.4, (60, 60)),  # two groups cannot have 40 % each
    ],
)
def test_balance_cuts_large_groups_to_their_share(sizes: tuple[int, ...], share: float, kept: tuple[int, ...]) -> None:
    rows = [Row(f"{group}{number}", "train", "x", file=str(group)) for group, size in enumerate(sizes) for number in range(size)]
    rows += [Row("h", "held_out", "x", file="0")]
    decisions: Decisions = [None] * len(rows)
    balance(rows, decisions, Balance(by="file", at_most=share))
    left = [row for row, drop in zip(rows, decisions, strict=True) if drop is None]
    assert tuple(sum(row.file == str(group) and row.split == "train" for row in left) for group in range(len(sizes))) == kept
    assert rows[-1] in left


def test_planted_duplicates_and_contamination_among_other_filters() -> None:
    """Recall and precision of everything together; copies differ in one word of 20, and contain a held-out prompt as it is."""
    draw = random.Random(2)
    words = [f"word{number}" for number in range(4000)]
    clean = prompts(" ".join(draw.choices(words, k=20)) for _ in range(3000))
    held_out = prompts((" ".join(draw.choices(words, k=15)) for _ in range(300)), "held_out")
    copies = prompts(" ".join([*units(row.prompt)[:10], "changed", *units(row.prompt)[11:]]) for row in clean[:300])
    leaks = prompts(f"{' '.join(draw.choices(words, k=8))} {row.prompt}" for row in held_out[:200])
    rows = [*clean, *held_out, *copies, *leaks]
    draw.shuffle(rows)
    found = reasons(rows, length=[4, 150], duplicates=0.6)
    pairs = [{one.prompt, other.prompt} for one, other in zip(clean, copies, strict=False)]
    assert sum(len(pair & found.keys()) == 1 for pair in pairs) == 300  # recall: one of each pair goes
    assert sum(found.get(row.prompt) == "contains a held-out prompt" for row in leaks) == 200
    assert len(found) == 500  # precision: nothing else
