"""generated.jsonl: of each row that a model wrote, which model, asked what, when and at what cost; with scripted models."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from aligndistill.chat.protocol import Answered, Request, SamplingParams
from aligndistill.chat.scripted import ScriptedChat
from aligndistill.config.budget import Price
from aligndistill.config.candidates import Candidates
from aligndistill.config.data import Source
from aligndistill.config.elicitation import Expand, Magpie
from aligndistill.config.filters import Filters
from aligndistill.config.labels import Labels, Revise
from aligndistill.config.models import EndpointModel, FunctionModel
from aligndistill.config.run import Runtime
from aligndistill.errors import BudgetError
from aligndistill.records import Candidate, Demonstration, Message, Prompt, Usage, prompt_id
from aligndistill.stages import asking, candidates, demonstrations, elicitation, filters, labels, revisions, sampling
from aligndistill.stages.context import ModelSource, StageContext
from aligndistill.stages.files import CANDIDATES, DEMONSTRATIONS, GENERATED, PROMPTS
from aligndistill.stages.generated import Generated, read_generated, writer
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from tests.tiny_models import user

TEACHER = EndpointModel.model_validate({"kind": "endpoint", "base_url": "https://api.example.com:8443/v1/tenant", "name": "big"})
OTHER = FunctionModel(kind="function", function="tests.stages.test_generated:answer")
PRICES = {"teacher": Price(prompt=2, completion=10)}
"""US dollars per million tokens; a scripted model's tokens are words."""

Script = Callable[[tuple[Message, ...], int], str]


def answer(messages: list[dict[str, str]], sample: int, seed: int) -> str:
    return "never asked: a script is opened in its place"


def hash_by_hand(*parts: str) -> str:
    """Of texts without characters beyond ASCII."""
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()[:16]


class Budgeted(ScriptedChat):
    """A scripted model that ends the run in the place of its reply number `left`, from 0."""

    def __init__(self, script: Script, left: int | None = None) -> None:
        super().__init__(script)
        self._left = left

    def answer(self, requests: Sequence[Request], sampling: SamplingParams) -> Iterator[Answered]:
        for number, one in enumerate(super().answer(requests, sampling)):
            if number == self._left:
                raise BudgetError("the budget is spent.")
            yield one


class Clock:
    """Says `first`, then the next number, and so on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.next = 1
        for module in (sampling, asking):
            monkeypatch.setattr(module, "utc_now", self)

    def __call__(self) -> str:
        self.next += 1
        return f"t{self.next - 1}"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def context(folder: Path, name: str, script: Script, left: int | None = None) -> StageContext:
    (folder / name).mkdir(exist_ok=True)
    chat = Budgeted(script, left)
    return StageContext(name, folder / name, folder / "caches", Runtime(), open_model=lambda _: chat)


def write_prompts(folder: Path, *texts: str) -> Path:
    (folder / "in").mkdir()
    rows = [Prompt(id=prompt_id(user(text)), messages=user(text), source="x", split="train") for text in texts]
    write_jsonl(folder / "in" / PROMPTS, rows)
    return folder / "in"


def lines_in(folder: Path) -> list[Generated]:
    return list(read_jsonl(folder / GENERATED, Generated))


# ------------------------------------------------------------------------------------------------------- candidates

AUTHORS: dict[str, ModelSource] = {"teacher": TEACHER, "other": OTHER}


def sample(folder: Path, script: Script, left: int | None = None, authors: Mapping[str, ModelSource] = AUTHORS) -> None:
    settings = Candidates(authors=list(authors), per_prompt=2, temperature=0.5, max_new_tokens=9)
    context_of = context(folder, "candidates", script, left)
    candidates.make(context_of, settings=settings, authors=authors, prompts=folder / "in", seed=7, prices=PRICES)


def by_sample(messages: tuple[Message, ...], number: int) -> str:
    return f"{messages[-1].content} answer {number}" if messages[-1].content == "Two words" else "the same"


def test_candidates_by_hand(tmp_path: Path, clock: Clock) -> None:
    write_prompts(tmp_path, "Two words", "One")
    sample(tmp_path, by_sample)
    rows = list(read_jsonl(tmp_path / "candidates" / CANDIDATES, Candidate))
    lines = lines_in(tmp_path / "candidates")
    # Of four samples each, both of the first prompt by the teacher are kept (the other's are equal), and one of the second.
    assert [one.text for one in rows] == ["Two words answer 0", "Two words answer 1", "the same"]
    assert [(one.id, one.author) for one in lines] == [(one.id, "teacher") for one in rows]
    assert lines[1] == Generated(
        id=rows[1].id,
        author="teacher",
        model="big",
        server="api.example.com:8443",
        revision=None,
        prompt_hash=hash_by_hand("user", "Two words"),
        sampling={"temperature": 0.5, "max_new_tokens": 9, "seed": 7},
        time="t2",
        of=1,
        prompt_tokens=2,
        completion_tokens=4,
        usd=(2 * 2 + 4 * 10) / 1e6,
    )
    assert (lines[2].prompt_tokens, lines[2].completion_tokens, lines[2].time) == (1, 2, "t3")


def test_a_function_has_its_code_and_no_price(tmp_path: Path) -> None:
    write_prompts(tmp_path, "One")
    sample(tmp_path, by_sample, authors={"other": OTHER})
    (line,) = lines_in(tmp_path / "candidates")
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    assert (line.model, line.server, line.revision, line.usd) == (OTHER.function, None, code[:16], None)


def test_a_resumed_stage_keeps_the_times_of_what_it_had(tmp_path: Path, clock: Clock) -> None:
    write_prompts(tmp_path, "Two words", "One")
    with pytest.raises(BudgetError):
        sample(tmp_path, by_sample, left=1)
    assert clock.next == 2
    clock.next = 100
    sample(tmp_path, by_sample)
    assert [one.time for one in lines_in(tmp_path / "candidates")] == ["t1", "t100", "t101"]


def test_samples_of_a_version_without_times_are_read(tmp_path: Path, clock: Clock) -> None:
    write_prompts(tmp_path, "Two words", "One")
    with pytest.raises(BudgetError):
        sample(tmp_path, by_sample, left=1)
    (stored,) = (tmp_path / "candidates").rglob("sampled*.jsonl")
    old = {name: value for name, value in json.loads(stored.read_text()).items() if name != "time"}
    stored.write_text(json.dumps(old) + "\n")
    sample(tmp_path, by_sample)
    assert [one.time for one in lines_in(tmp_path / "candidates")] == [None, "t2", "t3"]


# ------------------------------------------------------------------------------------------------------ elicitation

SEEDS = ("Describe how a bridge is built", "Explain why the sky is blue", "Write a poem about the winter market")
LISTS = (
    "4. List seven rivers of France\n5. Compare copper with iron in a table\n6. Describe how a bridge is built",
    "4. Invent a name for my small bakery\n5. Summarise the rules of chess for children",
)


def expand(folder: Path, left: int | None = None) -> None:
    step = Expand(name="more", kind="expand", target=4, per_request=2, shots=3, temperature=0.5, max_new_tokens=40)
    said = dict(enumerate(LISTS))
    stage = context(folder, "prompts-more", lambda messages, number: said.get(number, "Nothing."), left)
    arguments = {"models": {"teacher": TEACHER}, "prompts": folder / "in", "seed": 3, "prices": PRICES}
    elicitation.make(stage, settings=step, **arguments)  # type: ignore[arg-type]


def test_prompts_of_one_request_share_it(tmp_path: Path, clock: Clock) -> None:
    write_prompts(tmp_path, *SEEDS)
    expand(tmp_path)
    rows = list(read_jsonl(tmp_path / "prompts-more" / PROMPTS, Prompt))
    lines = lines_in(tmp_path / "prompts-more")
    assert [one.id for one in lines] == [one.id for one in rows if one.lineage is not None]  # none of the user's own
    assert [one.messages[0].content for one in rows[3:]] == [
        "List seven rivers of France",  # of the three in this reply one is a seed
        "Compare copper with iron in a table",
        "Invent a name for my small bakery",
        "Summarise the rules of chess for children",
    ]
    assert [(one.time, one.of, one.completion_tokens) for one in lines] == [
        ("t2", 2, 19),
        ("t2", 2, 19),
        ("t1", 2, 15),
        ("t1", 2, 15),
    ]
    words = len(LISTS[0].split(" ")), len(LISTS[1].split(" "))
    assert words == (19, 15)
    first = lines[0]
    assert first.prompt_tokens is not None
    assert first.prompt_tokens > sum(len(one.split()) for one in SEEDS)
    assert first.usd == pytest.approx((first.prompt_tokens * 2 + 19 * 10) / 1e6)
    assert first.sampling == {"temperature": 0.5, "max_new_tokens": 40, "seed": 3}
    assert first.prompt_hash == lines[1].prompt_hash != lines[2].prompt_hash


def test_replies_from_the_cache_keep_their_times(tmp_path: Path, clock: Clock) -> None:
    write_prompts(tmp_path, *SEEDS)
    with pytest.raises(BudgetError):
        expand(tmp_path, left=1)
    clock.next = 100
    expand(tmp_path)
    assert [one.time for one in lines_in(tmp_path / "prompts-more")] == ["t100", "t100", "t1", "t1"]  # the second was asked first


def test_a_later_step_keeps_the_lines_of_the_prompts_before(tmp_path: Path, clock: Clock) -> None:
    write_prompts(tmp_path, *SEEDS)
    expand(tmp_path)
    before = lines_in(tmp_path / "prompts-more")
    step = Magpie(name="own", kind="magpie", target=1)
    stage = context(tmp_path, "prompts-own", lambda messages, number: "What makes bread rise in the oven?")
    models = {"teacher": TEACHER}
    elicitation.make(stage, settings=step, models=models, prompts=tmp_path / "prompts-more", seed=3, prices={})
    *earlier, last = lines_in(tmp_path / "prompts-own")
    assert earlier == before
    assert last.prompt_hash == hash_by_hand()  # the model wrote the user's turn by itself
    assert (last.prompt_tokens, last.completion_tokens, last.usd) == (0, 7, None)


def test_filters_keep_the_lines_of_the_prompts_that_are_kept(tmp_path: Path, clock: Clock) -> None:
    write_prompts(tmp_path, *SEEDS)
    expand(tmp_path)
    before = lines_in(tmp_path / "prompts-more")
    held_out = Prompt(id="h", messages=user("Say hello to the whole class"), source="x", split="held_out")
    rows = [*read_jsonl(tmp_path / "prompts-more" / PROMPTS, Prompt), held_out]
    write_jsonl(tmp_path / "prompts-more" / PROMPTS, rows)
    stage = context(tmp_path, "filters", lambda *_: "never asked")
    settings = Filters(length=(6, 99))  # of what was written, the rivers' five words are too few
    filters.prompts(stage, settings=settings, models={}, prompts=tmp_path / "prompts-more", seed=0)
    assert lines_in(tmp_path / "filters") == before[1:]


# ----------------------------------------------------------------------------------------- labels and demonstrations


def label(folder: Path, settings: Labels, script: Script) -> None:
    arguments = {"settings": settings.request, "prompts": folder / "in", "seed": 0}
    labels.make(context(folder, "labels", script), authors={"teacher": TEACHER}, held_out=0.1, prices=PRICES, **arguments)  # type: ignore[arg-type]
    demonstrations.make(
        context(folder, "demonstrations", script),
        settings=settings.request,
        selection=settings.selection,
        prompts=folder / "in",
        labels=folder / "labels",
    )


def test_labels_and_their_rows_by_hand(tmp_path: Path, clock: Clock) -> None:
    write_prompts(tmp_path, "Two and two?", "Why?")
    (tmp_path / "instruction.txt").write_text("Count with care.")
    settings = Labels.model_validate(
        {"model": "teacher", "instruction": str(tmp_path / "instruction.txt"), "per_prompt": 3, "keep": "all", "max_new_tokens": 20}
    )
    label(tmp_path, settings, lambda messages, number: "It is four." if number < 2 else f"{messages[-1].content} Four, I say.")
    lines = lines_in(tmp_path / "labels")
    rows = list(read_jsonl(tmp_path / "labels" / CANDIDATES, Candidate))
    assert [one.id for one in lines] == [one.id for one in rows]
    assert [one.samples for one in rows] == [2, 1, 2, 1]
    # Of two samples with the same text, the line is the first one's: t1 and t4.
    assert [(one.time, one.prompt_tokens, one.completion_tokens) for one in lines] == [
        ("t1", 6, 3),  # "Count with care." and the prompt
        ("t3", 6, 6),
        ("t4", 4, 3),
        ("t6", 4, 4),
    ]
    assert lines[2].prompt_hash == hash_by_hand("system", "Count with care.", "user", "Why?")
    assert lines[1].usd == pytest.approx((6 * 2 + 6 * 10) / 1e6)
    assert lines_in(tmp_path / "demonstrations") == lines  # every label is kept, as one row


def test_a_label_with_reasons_of_their_own_has_two_lines_of_one_request(tmp_path: Path, clock: Clock) -> None:
    write_prompts(tmp_path, "Two and two?")
    settings = Labels.model_validate({"model": "teacher", "rationale": "task", "keep": "all", "max_new_tokens": 20})
    label(tmp_path, settings, lambda messages, number: "I count.\nAnswer: 4")
    rows = list(read_jsonl(tmp_path / "demonstrations" / DEMONSTRATIONS, Demonstration))
    assert [(one.task, one.response) for one in rows] == [("answer", "4"), ("rationale", "I count.")]
    lines = lines_in(tmp_path / "demonstrations")
    of_prompt = prompt_id(user("Two and two?"))
    assert [one.id for one in lines] == [hash_by_hand(of_prompt, "teacher", text) for text in ("4", "I count.")]
    assert [(one.of, one.time, one.completion_tokens) for one in lines] == [(2, "t1", 3), (2, "t1", 3)]


def test_labels_of_a_store_without_the_file_have_no_lines(tmp_path: Path) -> None:
    write_prompts(tmp_path, "Two and two?")
    settings = Labels.model_validate({"model": "teacher", "keep": "all"})
    label(tmp_path, settings, lambda messages, number: "Four.")
    (tmp_path / "labels" / GENERATED).unlink()
    assert read_generated(tmp_path / "labels") == {}
    label_folder = tmp_path / "labels"
    stage = context(tmp_path, "demonstrations", lambda *_: "never asked")
    demonstrations.make(
        stage, settings=settings.request, selection=settings.selection, prompts=tmp_path / "in", labels=label_folder
    )
    assert lines_in(tmp_path / "demonstrations") == []
    assert len(list(read_jsonl(tmp_path / "demonstrations" / DEMONSTRATIONS, Demonstration))) == 1


def test_hinted_labels_follow_the_first_ones(tmp_path: Path, clock: Clock) -> None:
    write_prompts(tmp_path, "One?", "Two?")
    (tmp_path / "right.jsonl").write_text(json.dumps({"prompt": "Two?", "completion": "2"}) + "\n")
    function = "tests.stages.test_generated:accepts_digits"
    settings = Labels.model_validate(
        {
            "model": "teacher",
            "keep": "function",
            "function": function,
            "hint_on_failure": True,
            "references": {"path": str(tmp_path / "right.jsonl")},
        }
    )
    label(tmp_path, settings, lambda messages, number: "1" if messages[-1].content == "One?" else "two")
    first = lines_in(tmp_path / "labels")
    labels.hinted(
        context(tmp_path, "hinted", lambda messages, number: "2"),
        settings=settings.request,
        selection=settings.selection,
        references=Source(path=str(tmp_path / "right.jsonl")),
        authors={"teacher": TEACHER},
        prompts=tmp_path / "in",
        labels=tmp_path / "labels",
        held_out=0.0,
        seed=0,
        prices=PRICES,
    )
    rows = list(read_jsonl(tmp_path / "hinted" / CANDIDATES, Candidate))
    lines = lines_in(tmp_path / "hinted")
    assert [one.author for one in rows] == ["teacher", "teacher", "teacher-hinted"]
    assert [one.id for one in lines] == [one.id for one in rows]
    assert lines[:2] == first
    assert (lines[2].author, lines[2].time) == ("teacher", "t3")
    assert lines[2].prompt_hash != lines[1].prompt_hash  # the hint was sent, too


def accepts_digits(prompt: str, responses: Sequence[str]) -> list[bool]:
    return [one.isdigit() for one in responses]


# --------------------------------------------------------------------------------------------------------- revisions


@pytest.mark.parametrize("replaces", [False, True])
def test_revisions_by_hand(tmp_path: Path, clock: Clock, replaces: bool) -> None:
    write_prompts(tmp_path, "One")
    sample(tmp_path, lambda messages, number: "ipsum" if number else "lorem")
    before = lines_in(tmp_path / "candidates")
    asked: list[tuple[Message, ...]] = []

    def script(messages: tuple[Message, ...], number: int) -> str:
        asked.append(messages)
        if len(messages) == 1:
            return "It could be better."
        return "a much better answer" if "lorem" in messages[0].content else "another answer"

    revisions.make(
        context(tmp_path, "revised", script),
        settings=Revise.model_validate({"principles": ["Be right."], "temperature": 0.25, "max_new_tokens": 12}),
        replaces=replaces,
        authors={"teacher": TEACHER},
        prompts=tmp_path / "in",
        candidates=tmp_path / "candidates",
        seed=0,
        prices=PRICES,
    )
    rows = list(read_jsonl(tmp_path / "revised" / CANDIDATES, Candidate))
    lines = lines_in(tmp_path / "revised")
    assert [one.id for one in lines] == [one.id for one in rows]
    revised = [one for one in lines if one not in before]
    assert len(revised) == 2 == len(rows) - (0 if replaces else len(before))
    if not replaces:
        assert [one for one in lines if one in before] == before
    # The request with the revision is the one of three turns, not that for the critique before it.
    (wrote,) = (one for one in asked if len(one) == 3 and "lorem" in one[0].content)
    assert revised[0].prompt_hash == hash_by_hand(*(part for turn in wrote for part in (turn.role, turn.content)))
    words = sum(len(turn.content.split()) for turn in wrote)
    assert (revised[0].prompt_tokens, revised[0].completion_tokens) == (words, 4)
    assert revised[0].usd == pytest.approx((words * 2 + 4 * 10) / 1e6)
    assert (revised[0].author, revised[0].sampling["temperature"]) == ("teacher", 0.25)


# ------------------------------------------------------------------------------------------------------------- models

SAMPLING = SamplingParams(0.5, 9, 7)


def test_local_models_have_a_revision_and_no_path(tmp_path: Path) -> None:
    for stage, pointer in {
        "start-1a2b": {"path": "model"},
        "teacher-3c4d": {"path": str(tmp_path / "mine")},
        "model-hub-5e6f": {"path": "org/name", "revision": "c0ffee"},
    }.items():
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "model.json").write_text(json.dumps(pointer))
    for folder in ("mine", "start-1a2b/model"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(folder)
    trained, mine, hub = (writer("x", tmp_path / name, SAMPLING, {}) for name in ("start-1a2b", "teacher-3c4d", "model-hub-5e6f"))
    assert (trained.model, mine.model, hub.model) == ("start-1a2b", "mine", "org/name")
    assert hub.revision == "c0ffee"
    assert len({trained.revision, mine.revision, None}) == 3
    assert trained.server is mine.server is hub.server is None


def test_the_sampling_is_what_the_server_is_sent() -> None:
    changes = {"omit": ("temperature",), "body": {"top_p": 0.9, "seed": 1}}
    served = writer("x", TEACHER.model_copy(update=changes), SAMPLING, {})
    assert served.sampling == {"max_new_tokens": 9, "seed": 1, "top_p": 0.9}


def test_tokens_that_a_server_does_not_name_have_no_price() -> None:
    line = writer("teacher", TEACHER, SAMPLING, PRICES).line("row", (), Usage(calls=1), None)
    assert (line.prompt_tokens, line.completion_tokens, line.usd) == (None, None, None)
    another = writer("teacher", TEACHER, SAMPLING, PRICES).line("row", (), Usage(), None)  # counted in its request's first reply
    assert (another.prompt_tokens, another.completion_tokens, another.usd) == (0, 0, 0.0)
