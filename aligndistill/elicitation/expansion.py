"""More prompts like the user's, from examples: Self-Instruct (arXiv:2212.10560), in requests of several at a time."""

import random
from collections.abc import Sequence

from aligndistill.config.elicitation import Expand
from aligndistill.data.overlap import units
from aligndistill.elicitation import rules
from aligndistill.elicitation.asking import Ask, AuthorRequest, user
from aligndistill.elicitation.collecting import (
    Collected,
    Proposal,
    items_of,
    most_similar,
    requests_for,
    shown_text,
    training,
    why_stopped,
)
from aligndistill.elicitation.texts import built_in, with_fields
from aligndistill.records import Prompt

WAVE = 32
"""Requests that are sent at once. Their examples of the step's own prompts are from the waves before."""


def expand(step: Expand, prompts: Sequence[Prompt], ask: Ask, seed: int, shown: Sequence[Prompt] | None = None) -> Collected:
    """Ask for new prompts until there are enough, or until requests give none.

    Examples are training prompts alone, of at most the length that new ones may have: `own_shots` that models wrote, as soon as
    there are so many, and the others the user's. Of a conversation its first user turn is shown, which makes sense alone. A new
    prompt's parent is the example that it resembles most.

    Args:
        prompts: all prompts of the run so far, in both splits.
        shown: the training prompts that models see; by default all.
    """
    collected = Collected(step, prompts, unlike_training=True)
    known = training(prompts if shown is None else shown)
    known = [one for one in known if len(units(shown_text(one))) <= step.length[1]] or known
    written = [one for one in known if one.lineage is not None]
    users = [one for one in known if one.lineage is None]
    text_rules = rules.TextRules(step.length, step.forbidden, step.forbidden_start)
    instruction, limit = built_in("expand"), step.limit(step.target, step.per_request)
    in_vain = 0
    while (missing := step.target - len(collected.kept)) > 0:
        needed = requests_for(missing, len(collected.kept), collected.requests, step.per_request)
        wave = min(WAVE, needed, limit - collected.requests)
        if wave <= 0 or in_vain >= step.patience:
            collected.stopped = why_stopped(in_vain, step)
            break
        shots = [_examples(step, users, [*written, *collected.kept], collected.requests + n, seed) for n in range(wave)]
        questions = [_question(step, instruction, one, collected.requests + n) for n, one in enumerate(shots)]
        replies = ask(
            questions,
            temperature=step.temperature,
            max_new_tokens=step.max_new_tokens,
            note=f"{len(collected.kept)} of {step.target} prompts",
            later=needed - wave,
        )
        for question, examples, reply in zip(questions, shots, replies, strict=True):
            before = len(collected.kept)
            for text in items_of(collected, reply):
                parent = most_similar(text, examples)
                proposal = Proposal(text, step.kind, question, reply, root=parent.root, parent=parent.id)
                if reason := _broken(text, text_rules, instruction, examples):
                    collected.drop(proposal, reason)
                elif len(collected.kept) == step.target:
                    collected.drop(proposal, rules.MORE_THAN_ASKED)
                else:
                    collected.offer(proposal)
            in_vain = 0 if len(collected.kept) > before else in_vain + 1
    return collected


def _broken(text: str, text_rules: rules.TextRules, instruction: str, examples: Sequence[Prompt]) -> str | None:
    if reason := text_rules.broken(text):
        return reason
    if rules.leaks(text, instruction):
        return rules.LEAKED
    return rules.OTHER_SCRIPT if rules.in_another_script(text, [shown_text(one) for one in examples]) else None


def _examples(step: Expand, users: Sequence[Prompt], written: Sequence[Prompt], number: int, seed: int) -> list[Prompt]:
    """The examples of a request, in a random order."""
    chance = random.Random(f"{seed} {step.name} {number}")
    own = chance.sample(written, min(step.own_shots if users else step.shots, len(written)))
    shots = [*own, *chance.sample(users, min(step.shots - len(own), len(users)))]
    chance.shuffle(shots)
    return shots


def _question(step: Expand, instruction: str, examples: Sequence[Prompt], number: int) -> AuthorRequest:
    text = with_fields(
        instruction,
        shown=str(len(examples)),
        wanted=str(step.per_request),
        first=str(len(examples) + 1),
        last=str(len(examples) + step.per_request),
        examples="\n".join(f"{place}. {shown_text(one)}" for place, one in enumerate(examples, start=1)),
    )
    return AuthorRequest(step.models[number % len(step.models)], user(text), sample=number)
