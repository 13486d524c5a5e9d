"""Prompts that a model writes by itself, given its chat template up to the user's turn: Magpie (arXiv:2406.08464)."""

from collections.abc import Sequence

from aligndistill.config.elicitation import Magpie
from aligndistill.elicitation import rules
from aligndistill.elicitation.asking import Ask, AuthorRequest
from aligndistill.elicitation.collecting import Collected, Proposal, requests_for, usable, why_stopped
from aligndistill.records import Prompt

WAVE = 64
"""Requests that are sent at once."""


def magpie(step: Magpie, prompts: Sequence[Prompt], ask: Ask, seed: int) -> Collected:
    """Let the models write user turns until there are enough, or until they write nothing new. No prompt of the run is shown.

    Args:
        prompts: all prompts of the run so far, in both splits.
        seed: unused: it is that of the sampling.
    """
    collected = Collected(step, prompts, unlike_training=True)
    text_rules, limit = rules.TextRules(step.length, step.forbidden), step.limit(step.target, per_request=1)
    in_vain = 0
    while (missing := step.target - len(collected.kept)) > 0:
        needed = requests_for(missing, len(collected.kept), collected.requests, per_request=1)
        wave = min(WAVE, needed, limit - collected.requests)
        if wave <= 0 or in_vain >= step.patience:
            collected.stopped = why_stopped(in_vain, step)
            break
        numbers = range(collected.requests, collected.requests + wave)
        questions = [AuthorRequest(step.models[number % len(step.models)], (), sample=number) for number in numbers]
        note = f"{len(collected.kept)} of {step.target} prompts"
        replies = ask(questions, temperature=step.temperature, max_new_tokens=step.max_new_tokens, note=note, later=needed - wave)
        for question, reply in zip(questions, replies, strict=True):
            before = len(collected.kept)
            if usable(collected, reply):
                collected.parsed += 1
                proposal = Proposal(reply.text.strip(), step.kind, question, reply)
                if reason := text_rules.broken(proposal.text):
                    collected.drop(proposal, reason)
                else:
                    collected.offer(proposal)
            in_vain = 0 if len(collected.kept) > before else in_vain + 1
    return collected
