"""Harder and rarer prompts, each made from a training prompt: Evol-Instruct (arXiv:2304.12244), with the paper's elimination."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aligndistill.chat.protocol import Reply
from aligndistill.config.elicitation import Evolve, Operation
from aligndistill.data.overlap import units
from aligndistill.data.refusals import is_refusal
from aligndistill.elicitation import rules
from aligndistill.elicitation.asking import Ask, AuthorRequest, plain, user
from aligndistill.elicitation.collecting import Collected, Proposal, training, usable
from aligndistill.elicitation.texts import built_in, with_fields
from aligndistill.records import Message, Prompt, plain_prompt

MORE_WORDS = "The new prompt may be 10 to 20 words longer than the old one."
"""As in the paper. A rarer prompt is as long as the old one."""

JUDGEMENT_TOKENS = 64


@dataclass(frozen=True)
class _Evolving:
    """One prompt to make from another."""

    old: Prompt
    operation: Operation
    question: AuthorRequest
    instruction: str


def evolve(step: Evolve, prompts: Sequence[Prompt], ask: Ask, seed: int, shown: Sequence[Prompt] | None = None) -> Collected:
    """Ask for `per_prompt` new prompts for each training prompt, and in later rounds for each of the round before.

    Of a conversation the last user turn is rewritten; the turns before it stay as they are.

    Args:
        prompts: all prompts of the run so far, in both splits.
        shown: the training prompts that are evolved; by default all.
    """
    collected = Collected(step, prompts, unlike_training=False)
    old = training(prompts if shown is None else shown)
    for number in range(step.rounds):
        before = len(collected.kept)
        tasks = [_task(step, one, number, copy, seed) for one in old for copy in range(step.per_prompt)]
        note = f"round {number + 1} of {step.rounds}" if step.rounds > 1 else ""
        later = (step.compare + step.answer) * len(tasks)
        replies = ask(
            [one.question for one in tasks],
            temperature=step.temperature,
            max_new_tokens=step.max_new_tokens,
            note=note,
            later=later,
        )
        proposed = []
        for task, reply in zip(tasks, replies, strict=True):
            if not usable(collected, reply):
                continue
            collected.parsed += 1
            proposal = _proposal(task, reply)
            if reason := _broken(proposal.text, task):
                collected.drop(proposal, reason)
            else:
                proposed.append((task, proposal))
        for proposal in _remaining(step, collected, proposed, ask):
            collected.offer(proposal)
        old = collected.kept[before:]
    return collected


def _remaining(step: Evolve, collected: Collected, proposed: Sequence[tuple[_Evolving, Proposal]], ask: Ask) -> Iterator[Proposal]:
    """What is left after the elimination that asks a model: the same content, and answers that are refusals."""
    left = list(proposed)
    if step.compare:
        questions = [_comparison(task, one) for task, one in left]
        judged = ask(questions, temperature=0.0, max_new_tokens=JUDGEMENT_TOKENS, later=step.answer * len(left))
        verdicts = [None if reply.problem else rules.says_equal(reply.text) for reply in judged]
        for (_, proposal), equal in zip(left, verdicts, strict=True):
            if equal is not False:
                collected.drop(proposal, rules.EQUAL if equal else rules.UNREADABLE)
        left = [one for one, equal in zip(left, verdicts, strict=True) if equal is False]
    if step.answer:
        answers = ask(
            [AuthorRequest(one.author, one.messages) for _, one in left],
            temperature=step.temperature,
            max_new_tokens=step.answer_tokens,
        )
        refused = [reply.finish == "stop" and rules.is_short_refusal(reply.text) for reply in answers]
        for (_, proposal), refusal in zip(left, refused, strict=True):
            if refusal:
                collected.drop(proposal, rules.REFUSED_ANSWER)
        left = [one for one, refusal in zip(left, refused, strict=True) if not refusal]
    yield from (proposal for _, proposal in left)


def _broken(text: str, task: _Evolving) -> str | None:
    """The rule that a new prompt breaks, as far as its text tells."""
    old = task.old.messages[-1].content
    if units(text) == units(old):
        return rules.UNCHANGED
    if is_refusal(text):
        return rules.REFUSED
    if rules.leaks(text, task.instruction) and not rules.leaks(old, task.instruction):
        return rules.LEAKED
    if rules.says_nothing(text):
        return rules.ONLY_STOP_WORDS
    return rules.OTHER_SCRIPT if rules.in_another_script(text, [old]) else None


def _task(step: Evolve, old: Prompt, number: int, copy: int, seed: int) -> _Evolving:
    """Which operation, and which model: by the prompt's id, so that other prompts change nothing."""
    chance = random.Random(f"{seed} {step.name} {old.id} {number} {copy}")
    operation = chance.choice(step.operations)
    author = step.models[chance.randrange(len(step.models))]
    instruction = f"{built_in(operation)} {built_in('evolve_form')}"
    text = with_fields(
        instruction,
        standing="alone" if len(old.messages) == 1 else "as the next turn of the conversation",
        length="" if operation == "breadth" else MORE_WORDS,
        context=_context(old),
        prompt=old.messages[-1].content,
    )
    return _Evolving(old, operation, AuthorRequest(author, user(text), sample=copy), instruction)


def _proposal(task: _Evolving, reply: Reply) -> Proposal:
    old, text = task.old, plain(reply.text)
    return Proposal(text, task.operation, task.question, reply, earlier=old.messages[:-1], root=old.root, parent=old.id)


def _comparison(task: _Evolving, new: Proposal) -> AuthorRequest:
    text = with_fields(built_in("equal"), context=_context(task.old), first=task.old.messages[-1].content, second=new.text)
    return AuthorRequest(new.author, user(text))


def _context(old: Prompt) -> str:
    """The turns before the one that is rewritten; empty if there are none."""
    earlier: tuple[Message, ...] = old.messages[:-1]
    if not earlier:
        return ""
    turns = plain_prompt(earlier) if len(earlier) > 1 else f"{earlier[0].role.capitalize()}: {earlier[0].content}"
    return "\n" + with_fields(built_in("turns"), turns=turns) + "\n"
