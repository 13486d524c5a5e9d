"""candidates.jsonl: what the configured models answer to each prompt, exact duplicates dropped."""

from collections.abc import Mapping, Sequence

from aligndistill.chat.protocol import Sampling
from aligndistill.config.models import EndpointModel
from aligndistill.config.run import Candidates
from aligndistill.processes.ranks import is_main_process
from aligndistill.records import Candidate, Prompt, candidate_id
from aligndistill.stages.context import Work, require_records
from aligndistill.stages.sampling import Author, Order, Written, write_samples
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.store.stage import Made


def make_candidates(work: Work, settings: Candidates, endpoints: Mapping[str, EndpointModel]) -> Made:
    """Sample from every author; what was sampled before a kill is kept.

    Args:
        endpoints: the authors that are servers; the others are inputs of the stage.
    """
    prompts = list(read_jsonl(work.inputs["prompts"] / "prompts.jsonl", Prompt))
    sampling = Sampling(settings.temperature, settings.max_new_tokens, work.seed)
    messages = {prompt.id: prompt.messages for prompt in prompts}
    order = Order(messages, settings.per_prompt, settings.max_prompt_tokens, sampling)
    written: dict[tuple[str, str, int], Written] = {}
    too_long = refused = 0
    for author in settings.authors:
        delivery = write_samples(work, Author(author, endpoints.get(author)), order, work.scratch / "written.jsonl")
        written |= {(prompt, author, sample): one for (prompt, sample), one in delivery.written.items()}
        too_long += delivery.too_long
        refused += delivery.refused

    if not is_main_process():
        return Made()
    candidates, dropped = _distinct(prompts, settings, written)
    dropped = {reason: count for reason, count in {**dropped, "prompt too long": too_long, "refused": refused}.items() if count}
    require_records(len(candidates), "candidates", dropped)
    write_jsonl(work.folder / "candidates.jsonl", candidates)
    usage = [one.usage for one in written.values()]
    return Made(
        counts={"prompts": len(prompts), "sampled": len(written), "candidates": len(candidates)},
        dropped=dropped,
        figures={
            "calls": sum(one.calls for one in usage),
            "completion_tokens": sum(one.completion_tokens for one in usage),
            "stopped": sum(one.finish == "stop" for one in written.values()) / len(written),
        },
    )


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
