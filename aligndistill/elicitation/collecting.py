"""The new prompts of a step as they come in: which are kept, which are dropped and why."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from aligndistill.chat.protocol import Reply
from aligndistill.config.elicitation import REQUESTS_OF_NEED, ElicitStep, Searching
from aligndistill.data.overlap import nearest_by_rouge_l, units
from aligndistill.data.refusals import is_refusal
from aligndistill.elicitation import rules
from aligndistill.elicitation.asking import AuthorRequest, listed
from aligndistill.elicitation.similar import HeldOutPrompts, SimilarTexts, user_turns
from aligndistill.records import Dropped, Lineage, Message, Prompt, content_hash, prompt_id


@dataclass(frozen=True)
class Proposal:
    """A prompt that a model wrote.

    Attributes:
        text: of its last user turn, the one that is new.
        request, reply: what was asked of the model, and what it said.
        earlier: the turns before it.
        root, parent, topic: see `Lineage`; no root if it is its own.
        category: what the report counts it as; by default its operation.
    """

    text: str
    operation: str
    request: AuthorRequest
    reply: Reply
    earlier: tuple[Message, ...] = ()
    root: str | None = None
    parent: str | None = None
    topic: str = ""
    category: str = ""

    @property
    def author(self) -> str:
        """The name of the model that wrote it."""
        return self.request.author

    @property
    def messages(self) -> tuple[Message, ...]:
        """The whole conversation."""
        return (*self.earlier, Message(role="user", content=self.text))


class Collected:
    """What a step has kept and dropped so far.

    Args:
        unlike_training: whether prompts that are similar to a training prompt, or to a kept one, are dropped; else equal ones are.

    Attributes:
        kept: the new prompts, in the order of the requests.
        proposals: what they were before, in the same order.
        dropped: what was dropped, whole replies included.
        requests, parsed: replies with new prompts in them that were asked for, and prompts found in them.
        categories: of the kept prompts.
        stopped: why the step ended before it had all that it was to write; empty if it did not.
    """

    def __init__(self, step: ElicitStep, prompts: Sequence[Prompt], unlike_training: bool) -> None:
        self.kept: list[Prompt] = []
        self.proposals: list[Proposal] = []
        self.dropped: list[Dropped] = []
        self.requests = self.parsed = 0
        self.stopped = ""
        self.categories: Counter[str] = Counter()
        self._name = step.name
        self._ids = {one.id for one in prompts}
        self._held_out = HeldOutPrompts(prompts, step.max_similarity)
        known = ((one.id, text) for one in prompts if one.split == "train" for text in user_turns(one)) if unlike_training else ()
        self._training = SimilarTexts(step.max_similarity if unlike_training else 1.0, known)
        self._unlike_training = unlike_training

    def drop_reply(self, reply: Reply, reason: str) -> None:
        """A reply of which nothing is used."""
        self.drop_text(reply.text or reply.problem, reason)

    def drop(self, proposal: Proposal, reason: str, nearest: str | None = None, score: float | None = None) -> None:
        """A prompt that breaks a rule."""
        self.drop_text(proposal.text, reason, nearest, score)

    def drop_text(self, text: str, reason: str, nearest: str | None = None, score: float | None = None) -> None:
        """A text that becomes no prompt."""
        identity = content_hash(self._name, text)
        self.dropped.append(Dropped(id=identity, reason=reason, nearest=nearest, score=score, text=text))

    def offer(self, proposal: Proposal) -> bool:
        """Keep a prompt that has passed its step's own rules, unless the run has it or it repeats a held-out prompt."""
        if not self.is_new(proposal):
            return False
        self.keep(proposal)
        return True

    def is_new(self, proposal: Proposal) -> bool:
        """Whether the run has nothing like this prompt; if it has, the prompt is dropped."""
        if (found := self._held_out.match(proposal.text)) is not None:
            self.drop(proposal, found.reason, found.prompt, found.score)
            return False
        identity = prompt_id(proposal.messages)
        if identity in self._ids:
            self.drop(proposal, rules.DUPLICATE, identity, 1.0)
            return False
        nearest, score = self._training.nearest(proposal.text) if self._unlike_training else (None, 0.0)
        if nearest is not None:
            self.drop(proposal, rules.SIMILAR, nearest, score)
            return False
        return True

    def keep(self, proposal: Proposal) -> None:
        """Keep a prompt."""
        identity = prompt_id(proposal.messages)
        lineage = Lineage(
            root=proposal.root or identity,
            parent=proposal.parent,
            operation=proposal.operation,
            author=proposal.author,
            topic=proposal.topic,
        )
        source = f"{self._name}, written by {proposal.author}"
        self.kept.append(Prompt(id=identity, messages=proposal.messages, source=source, split="train", lineage=lineage))
        self.proposals.append(proposal)
        self._ids.add(identity)
        self.categories[proposal.category or proposal.operation] += 1
        if self._unlike_training:
            self._training.add(identity, proposal.text)

    def reasons(self) -> dict[str, int]:
        """How many were dropped, by reason, the most frequent first."""
        return dict(Counter(one.reason for one in self.dropped).most_common())


def usable(collected: Collected, reply: Reply) -> bool:
    """Whether a reply that is to be one prompt is whole; if not, it is dropped."""
    if not _answered(collected, reply):
        return False
    if reply.finish == "length":
        collected.drop_reply(reply, rules.CUT_OFF)
        return False
    return True


def items_of(collected: Collected, reply: Reply) -> list[str]:
    """The prompts that a reply lists; a reply without a list is dropped.

    Of a list that was cut off the last prompt is dropped, which may be half a prompt: models that only continue text never end one.
    """
    if not _answered(collected, reply):
        return []
    found, cut_off = listed(reply.text), reply.finish == "length"
    collected.parsed += len(found)
    if found and cut_off:
        collected.drop_text(found.pop(), rules.CUT_OFF)
    elif not found:
        refused = is_refusal(reply.text)
        collected.drop_reply(reply, rules.REFUSED if refused else rules.CUT_OFF if cut_off else rules.NO_LIST)
    return found


def whole_items(reply: Reply) -> list[str]:
    """The items that a reply lists, without the last one if the reply was cut off."""
    return listed(reply.text)[: -1 if reply.finish == "length" else None]


def _answered(collected: Collected, reply: Reply) -> bool:
    """Count a request, and drop its reply if there is no text."""
    collected.requests += 1
    if reply.problem or not reply.text.strip():
        collected.drop_reply(reply, rules.NO_REPLY)
        return False
    return True


def requests_for(missing: int, kept: int, requests: int, per_request: int) -> int:
    """How many more requests will about do, if they give as much as those so far; at least a quarter of what they ask for.

    Args:
        missing: prompts.
        kept: prompts of `requests` so far.
    """
    rate = max(kept / requests, per_request / REQUESTS_OF_NEED) if requests else per_request
    return ceil(missing / rate)


def why_stopped(in_vain: int, step: Searching) -> str:
    """Why a step ends before it has all that it was to write."""
    if in_vain >= step.patience:
        return f"the last {in_vain} requests gave no new prompt (patience)"
    return "as many requests were sent as the step may send (max_requests)"


def most_similar(text: str, examples: Sequence[Prompt]) -> Prompt:
    """Which of several examples a new prompt resembles most, by ROUGE-L; the first if it resembles none."""
    nearest, _ = nearest_by_rouge_l(units(text), [(one.id, units(shown_text(one))) for one in examples])
    return next((one for one in examples if one.id == nearest), examples[0])


def shown_text(prompt: Prompt) -> str:
    """A prompt as an example: its first user turn, which makes sense alone."""
    return user_turns(prompt)[0]


def training(prompts: Iterable[Prompt]) -> list[Prompt]:
    """The prompts that a model may see: those of the training split, by id, so that the order of rows changes nothing."""
    return sorted((one for one in prompts if one.split == "train"), key=lambda one: one.id)
