"""Tasks for judges, from plain text."""

from aligndistill.judges.protocol import Task
from aligndistill.records import Candidate, Message, candidate_id, prompt_id


def task(prompt: str | tuple[Message, ...], *texts: str) -> Task:
    messages = (Message(role="user", content=prompt),) if isinstance(prompt, str) else prompt
    prompt_name = prompt_id(messages)
    candidates = tuple(
        Candidate(id=candidate_id(prompt_name, "start", text), prompt_id=prompt_name, text=text, author="start") for text in texts
    )
    return Task(prompt_name, messages, candidates)
