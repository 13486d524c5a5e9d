"""candidates.jsonl: what the configured models answer to each prompt, exact duplicates dropped."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from aligndistill.chat.protocol import Request, Sampling
from aligndistill.config import Candidates, EndpointModel
from aligndistill.progress import bar
from aligndistill.records import Candidate, Finish, Prompt, Record, Usage, candidate_id
from aligndistill.stages.open_models import open_chat
from aligndistill.stages.stage import Made, Work, require_records
from aligndistill.store.jsonl import Appender, read_jsonl, write_jsonl


class Written(Record):
    """One sample as it arrived, before duplicates are dropped."""

    prompt_id: str
    author: str
    sample: int
    text: str
    finish: Finish
    usage: Usage


def make_candidates(work: Work, settings: Candidates, endpoints: Mapping[str, EndpointModel]) -> Made:
    """Sample from every author; what was sampled before a kill is kept.

    Args:
        endpoints: the authors that are servers; the others are inputs of the stage.
    """
    prompts = list(read_jsonl(work.inputs["prompts"] / "prompts.jsonl", Prompt))
    partial = work.scratch / "written.jsonl"
    too_long = 0
    for author in settings.authors:
        too_long += _write(work, settings, author, endpoints.get(author), prompts)

    written = {(one.prompt_id, one.author, one.sample): one for one in read_jsonl(partial, Written)}
    candidates, dropped = _distinct(prompts, settings, written)
    require_records(len(candidates), "candidates")
    write_jsonl(work.folder / "candidates.jsonl", candidates)
    usage = [one.usage for one in written.values()]
    return Made(
        counts={"prompts": len(prompts), "sampled": len(written), "candidates": len(candidates)},
        dropped={k: v for k, v in {**dropped, "prompt too long": too_long}.items() if v},
        figures={
            "calls": sum(one.calls for one in usage),
            "completion_tokens": sum(one.completion_tokens for one in usage),
            "stopped": sum(one.finish == "stop" for one in written.values()) / len(written),
        },
    )


def _write(work: Work, settings: Candidates, author: str, endpoint: EndpointModel | None, prompts: Sequence[Prompt]) -> int:
    """Ask one author for what is missing. Returns how many prompts are too long for it."""
    done = defaultdict(set)
    path = work.scratch / "written.jsonl"
    with Appender(path) as appender:
        for one in read_jsonl(path, Written):
            if one.author == author:
                done[one.prompt_id].add(one.sample)
        missing = [
            (prompt, tuple(number for number in range(settings.per_prompt) if number not in done[prompt.id])) for prompt in prompts
        ]
        missing = [(prompt, samples) for prompt, samples in missing if samples]
        if not missing:
            return 0
        chat = open_chat(work, author, endpoint)
        fitting = [
            (prompt, samples)
            for prompt, samples in missing
            if chat.fits(prompt.messages, settings.max_prompt_tokens, settings.max_new_tokens)
        ]
        requests = [Request(prompt.messages, samples) for prompt, samples in fitting]
        sampling = Sampling(settings.temperature, settings.max_new_tokens, work.seed)
        with bar(f"candidates by {author}", sum(len(request.samples) for request in requests)) as running:
            for answered in chat.model.answer(requests, sampling):
                appender.add(
                    [
                        Written(
                            prompt_id=fitting[answered.request][0].id,
                            author=author,
                            sample=answered.sample,
                            text=answered.reply.text,
                            finish=answered.reply.finish,
                            usage=answered.reply.usage,
                        )
                    ]
                )
                running.advance()
        return len(missing) - len(fitting)


def _distinct(
    prompts: Sequence[Prompt], settings: Candidates, written: Mapping[tuple[str, str, int], Written]
) -> tuple[list[Candidate], dict[str, int]]:
    candidates: list[Candidate] = []
    dropped = {"empty": 0, "duplicate": 0}
    for prompt in prompts:
        texts: set[str] = set()
        for author in settings.authors:
            for sample in range(settings.per_prompt):
                one = written.get((prompt.id, author, sample))
                if one is None:
                    continue
                if not one.text.strip():
                    dropped["empty"] += 1
                elif one.text in texts:
                    dropped["duplicate"] += 1
                else:
                    texts.add(one.text)
                    identity = candidate_id(prompt.id, author, one.text)
                    candidates.append(Candidate(id=identity, prompt_id=prompt.id, text=one.text, author=author, finish=one.finish))
    return candidates, dropped
