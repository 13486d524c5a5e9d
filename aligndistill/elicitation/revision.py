"""Critique and revision: a model says where an answer falls short of a principle, then rewrites it.

As in Constitutional AI (Bai et al. 2022, arXiv:2212.08073, section 3.1), a principle is drawn for each step. A revision is never
assumed to be better than its original: a judge says which is.
"""

import re
from collections.abc import Sequence

from aligndistill.elicitation.texts import built_in, with_fields
from aligndistill.records import Candidate, Finish, Message, content_hash

UNREADABLE_CRITIQUE, CUT_CRITIQUE, REFUSED_CRITIQUE = "unreadable critique", "critique cut off", "critique is a refusal"
EMPTY_REVISION, CUT_REVISION, REFUSED_REVISION, UNCHANGED = (
    "empty revision",
    "revision cut off",
    "revision is a refusal",
    "unchanged",
)

_PREAMBLE = re.compile(
    r"^\W*(?:sure\W+)?(?:here(?:['\u2019]s| is)\s+(?:the|a|my)\s+)?(?:rewritten|revised|improved)\s+(?:answer|version|response)"
    r"[^\n:]{0,40}:[*_]*\s*",
    re.IGNORECASE,
)
"""What models write in front of a rewritten text: `Here is the revised answer:`."""


def principle_of(principles: Sequence[str], candidate: str, step: int, seed: int) -> str:
    """The principle of a step: drawn by the seed, the candidate and the step's number."""
    return principles[int(content_hash("principle", str(seed), candidate, str(step)), 16) % len(principles)]


def critique_request(prompt: str, answer: str, principle: str, seed: int) -> tuple[Message, ...]:
    """The request for a critique. The mark around the texts is a hash of them and the seed, which their authors cannot know."""
    mark = content_hash("mark", str(seed), prompt, answer, principle)[:12]
    text = with_fields(built_in("critique"), prompt=prompt, answer=answer, principle=principle, mark=mark)
    return (Message(role="user", content=text),)


def revision_request(critique_of: Sequence[Message], critique: str) -> tuple[Message, ...]:
    """The request for a revision, in the same conversation."""
    return (
        *critique_of,
        Message(role="assistant", content=critique),
        Message(role="user", content=built_in("revision")),
    )


def bad_critique(text: str, finish: Finish, declines: bool) -> str | None:
    """Why a critique cannot be used; None if it can."""
    if not re.search(r"\w\W+\w", text):
        return UNREADABLE_CRITIQUE
    if finish == "length":
        return CUT_CRITIQUE
    return REFUSED_CRITIQUE if declines else None


def revised_text(text: str) -> str:
    """A revision without what models write in front of it."""
    return _PREAMBLE.sub("", text.strip(), count=1).strip()


def bad_revision(text: str, finish: Finish, original: str, declines: bool) -> str | None:
    """Why a revision is dropped; None if it is not. It may decline if its original does."""
    if not text:
        return EMPTY_REVISION
    if finish == "length":
        return CUT_REVISION
    if declines:
        return REFUSED_REVISION
    return UNCHANGED if " ".join(text.split()) == " ".join(original.split()) else None


def author_of_revision(original: Candidate, reviser: str) -> str:
    """The author of a revision, such as `start+teacher-revision`. No model of a config can have this name."""
    return f"{original.author}+{reviser}-revision"
