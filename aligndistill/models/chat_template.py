"""A tokenizer's chat template with a model's settings written into its text.

What would otherwise be an argument of every rendering, or change from day to day, becomes part of the template: the mode of
thinking and other variables are set at its top, a fixed date replaces the clock, and what it writes in front of every answer is
written at the end of the prompt. So everything that uses the tokenizer renders the same prompt: sampling, training, TRL's
trainers, and whatever loads the saved student.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jinja2
import jinja2.meta

from aligndistill.config.models import PASSED_TO_TEMPLATES, Thinking
from aligndistill.config.problems import did_you_mean
from aligndistill.errors import DataError, RefusedConversation
from aligndistill.models.thought_markers import ANY_CLOSING, is_empty_block, opened_at_end

DATE = "26 Jul 2024"
"""The date in prompts whose template writes one: the one that Llama 3.1's template has without an argument."""

SWITCHES = ("enable_thinking", "thinking")
"""The variables by which templates switch thinking."""

_CLOCK = "strftime_now"
_DIRECTIVES = ("%-d", "%-m", "%a", "%A", "%b", "%B", "%d", "%H", "%I", "%j", "%m", "%M", "%p", "%S", "%y", "%Y")
_GENERATION_TAGS = re.compile(r"{%[-+]?\s*(?:end)?generation\s*[-+]?%}")
_MARKER = "aligndistill"
_USER = {"role": "user", "content": _MARKER}
_ASSISTANT = {"role": "assistant", "content": _MARKER}
_NOT_ARGUMENTS = PASSED_TO_TEMPLATES | {"raise_exception", _CLOCK}


@dataclass(frozen=True)
class AnswerPlace:
    """What a template writes around an answer.

    Attributes:
        tail: what a prompt ends with, behind the text of its last turn.
        lead: what a finished turn has between the prompt and the answer.
        end: what follows the answer.
        mismatch: why no text can be trained on behind this prompt: a finished turn does not begin with it. Empty if it does.
    """

    tail: str
    lead: str
    end: str
    mismatch: str = ""


def fix_template(
    tokenizer: Any, thinking: Thinking, arguments: Mapping[str, bool | int | float | str], template: str | None
) -> None:
    """Write the settings of a model into its tokenizer's chat template.

    Args:
        thinking: `auto` switches thinking off where the template has a switch and the prompt without thinking differs.
        arguments: values of the template's variables.
        template: replaces the tokenizer's own.

    Raises:
        DataError: the template cannot be rendered, has no such variable, or cannot switch thinking off.
    """
    if template is None and tokenizer.chat_template is None:
        return  # `Conversation` says what to do
    original = template or tokenizer.get_chat_template()
    fixed, without_thinking = _with_settings(tokenizer, original, thinking, arguments)
    place = answer_place(tokenizer, fixed)
    if place.lead.strip() and thinking != "on" and (without_thinking or not ANY_CLOSING.search(place.lead)):
        fixed = fixed.removesuffix("\n") + f"{{% if add_generation_prompt %}}{{{{ {_literal(place.lead)} }}}}{{% endif %}}"
    elif thinking == "off" and opened_at_end(place.tail):
        raise DataError(
            f"thinking: off was asked for, but the chat template of '{tokenizer.name_or_path}' has no switch for it and ends its "
            f"prompt with {opened_at_end(place.tail)!r}. Give another template with chat_template: FILE, or use another model."
        )
    if fixed != tokenizer.chat_template:
        tokenizer.chat_template = fixed


def _with_settings(
    tokenizer: Any, template: str, thinking: Thinking, arguments: Mapping[str, bool | int | float | str]
) -> tuple[str, bool]:
    """The template with its variables and date set, and whether thinking is switched off."""
    variables = _variables(tokenizer, template)
    known = variables | ({"date_string"} if _CLOCK in variables else set())
    for name in arguments:
        if name not in known:
            listed = ", ".join(sorted(known - _NOT_ARGUMENTS)) or "none"
            raise DataError(
                f"template_arguments: the chat template of '{tokenizer.name_or_path}' has no variable '{name}'"
                f"{did_you_mean(name, sorted(known))} (its variables: {listed})."
            )
    base = "".join(_set(name, value) for name, value in arguments.items() if name in variables) + template
    if _CLOCK in variables:
        base = _fixed_clock(arguments.get("date_string", DATE), must="date_string" not in variables) + base
    switches = [name for name in SWITCHES if name in variables and name not in arguments]
    if not switches:
        return base, thinking == "off"
    switched = "".join(_set(name, thinking == "on") for name in switches) + base
    if thinking == "auto" and rendered(tokenizer, switched, [_USER], True) == rendered(tokenizer, base, [_USER], True):
        return base, False
    return switched, thinking != "on"


def answer_place(tokenizer: Any, template: str) -> AnswerPlace:
    """What a template writes around the answer to a user turn.

    Raises:
        DataError: the template cannot be rendered, or does not write the text of a turn.
    """
    prompt = rendered(tokenizer, template, [_USER], True)
    whole = rendered(tokenizer, template, [_USER, _ASSISTANT], False)
    name = tokenizer.name_or_path
    if _MARKER not in prompt or whole.count(_MARKER) < 2:
        raise DataError(
            f"the chat template of '{name}' does not write the text of a turn (templates for images read it from a list). "
            "Give another template with chat_template: FILE, or set layout: transcript."
        )
    question, answer = prompt.rindex(_MARKER) + len(_MARKER), whole.rindex(_MARKER)
    tail, end = prompt[question:], whole[answer + len(_MARKER) :]
    if whole.startswith(prompt):
        return AnswerPlace(tail, whole[len(prompt) : answer], end)
    same = len(os.path.commonprefix([prompt, whole[:answer]]))  # noqa: RUF071 (by character is what is meant)
    if same == answer and is_empty_block(prompt[same:]):  # the answer follows the empty block, which earlier turns do not have
        return AnswerPlace(tail, "", end)
    shown = max(question, prompt.rfind("\n", 0, same) + 1)
    has_switch = set(SWITCHES) & _variables(tokenizer, template) or thinks_by_switch(template)
    switch = "set thinking: off, or " if has_switch else ""
    mismatch = (
        f"the chat template of '{name}' writes {whole[shown:answer]!r} before an answer but ends its prompt with "
        f"{prompt[shown:]!r}, so nothing can be trained or scored in the format of its prompts: {switch}give another template with "
        "chat_template: FILE."
    )
    return AnswerPlace(tail, "", end, mismatch)


def before_user_turn(tokenizer: Any, template: str) -> str:
    """What a template writes before the text of a first user turn, its own system turn included.

    Raises:
        DataError: the template cannot be rendered, or does not write the text of a turn.
    """
    before, found, _ = rendered(tokenizer, template, [_USER], False).partition(_MARKER)
    if not found:
        raise DataError(f"the chat template of '{tokenizer.name_or_path}' does not write the text of a user turn.")
    return before


def thinks_by_switch(template: str) -> bool:
    """Whether `fix_template` switched thinking on in this template."""
    return any(_set(name, True) in template for name in SWITCHES)


def writes_date(template: str) -> bool:
    """Whether a template, with the settings of `fix_template` in it, writes a date."""
    return _CLOCK in template or "date_string" in template


def refused_turns(tokenizer: Any) -> list[str]:
    """Which turns the tokenizer's template refuses, besides those of a user and an assistant in turn."""
    system = {"role": "system", "content": _MARKER}
    tried = {
        "a system turn": [system, _USER],
        "a later system turn": [_USER, _ASSISTANT, system, _USER],
        "two user turns in a row": [_USER, _USER],
        "an assistant turn first": [_ASSISTANT, _USER],
    }
    found = []
    for name, turns in tried.items():
        try:
            rendered(tokenizer, tokenizer.get_chat_template(), turns, True)
        except RefusedConversation:
            found.append(name)
    return found


def rendered(tokenizer: Any, template: str, turns: Sequence[Mapping[str, str]], prompt: bool) -> str:
    """A conversation as text.

    Args:
        prompt: whether an answer is to follow.

    Raises:
        DataError: the template is not valid, or refuses the conversation.
    """
    try:
        text = tokenizer.apply_chat_template(list(turns), chat_template=template, add_generation_prompt=prompt, tokenize=False)
    except Exception as error:  # a template can raise any type
        raise refused(tokenizer, turns, error) from None
    return str(text)


def refused(tokenizer: Any, turns: Sequence[Mapping[str, str]], error: Exception) -> RefusedConversation:
    """The error for a conversation that a template refuses, with the template's own message."""
    roles = ", ".join(turn["role"] for turn in turns)
    return RefusedConversation(
        f"the chat template of '{tokenizer.name_or_path}' refuses a conversation with the turns {roles} "
        f"(the last: {turns[-1]['content'][:60]!r}): {error}. Change the conversation, or give another template with "
        "chat_template: FILE."
    )


def _variables(tokenizer: Any, template: str) -> set[str]:
    """The variables that a template reads and does not set itself."""
    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"])
    try:
        return jinja2.meta.find_undeclared_variables(environment.parse(_GENERATION_TAGS.sub("", template)))
    except jinja2.TemplateSyntaxError as error:
        raise DataError(
            f"the chat template of '{tokenizer.name_or_path}' is not valid: {error.message}, line {error.lineno}."
        ) from None


def _set(name: str, value: bool | int | float | str) -> str:
    return f"{{%- set {name} = {_literal(value)} -%}}\n"


def _literal(value: bool | int | float | str) -> str:
    """A value as Jinja writes it, which is as JSON does."""
    return json.dumps(value, ensure_ascii=False)


def _fixed_clock(date: object, must: bool) -> str:
    """A macro in place of the function that reads the clock. It formats this date, at midnight.

    Args:
        must: whether the template has no other way to read the date; if it has, its own text of any form may be given.
    """
    for form in ("%d %b %Y", "%d %B %Y", "%Y-%m-%d"):
        try:
            day = datetime.strptime(str(date), form)
            break
        except ValueError:
            continue
    else:
        if must:
            raise DataError(f"template_arguments.date_string: '{date}' is not a date such as '{DATE}' or '2024-07-26'.")
        day = datetime.strptime(DATE, "%d %b %Y")
    filters = "".join(f" | replace({_literal(one)}, {_literal(day.strftime(one))})" for one in _DIRECTIVES)
    return f"{{%- macro {_CLOCK}(format) -%}}\n{{{{- format{filters} -}}}}\n{{%- endmacro -%}}\n"
