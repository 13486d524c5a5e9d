"""A language model in this process that answers conversations."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

from aligndistill.chat.protocol import CUT_IN_THOUGHTS, NO_ANSWER, Answered, LabelLogprobs, Reply, Request, SamplingParams
from aligndistill.chat.thoughts import SplitReply, split_thoughts
from aligndistill.errors import DataError
from aligndistill.models.conversation import Conversation
from aligndistill.models.grouped_model import batches_by_length
from aligndistill.models.groups import TokenGroup
from aligndistill.models.load import LanguageModel
from aligndistill.models.sampling import Sampled, SampleRequest, sample
from aligndistill.models.scoring import score_groups
from aligndistill.records import Message, Usage, prompt_id

SMALLEST_PROBABILITY = 1e-300


class LocalChat:
    """Answers in batches of prompts of similar length.

    Attributes:
        identity: the fingerprint of the model's weights and layout.
    """

    def __init__(self, language_model: LanguageModel, identity: str, batch_size: int, compile_decoding: bool = False) -> None:
        self.identity = identity
        self._language_model = language_model
        self._batch_size = batch_size
        self._compile_decoding = compile_decoding

    def fits(self, messages: tuple[Message, ...], new_tokens: int) -> bool:
        """Whether this prompt and `new_tokens` more tokens fit the model's positions."""
        positions = self._language_model.max_positions
        return positions is None or len(self._language_model.conversation.prompt_ids(messages)) + new_tokens <= positions

    def answer(self, requests: Sequence[Request], sampling: SamplingParams) -> Iterator[Answered]:
        """Sample answers. Filter out prompts that do not fit the model's positions in advance (see `fits`).

        Raises:
            DataError: a prompt and `max_new_tokens` do not fit the model's positions."""
        conversation = self._language_model.conversation
        prompts = [conversation.prompt_ids(request.messages) for request in requests]
        self._require_fit(prompts, sampling.max_new_tokens)
        same_count: dict[int, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            same_count[len(request.samples)].append(index)
        for indices in same_count.values():
            for batch in batches_by_length([len(prompts[i]) for i in indices], self._batch_size):
                chosen = [indices[place] for place in batch]
                samples = sample(
                    self._language_model,
                    [SampleRequest(prompts[i], prompt_id(requests[i].messages), requests[i].samples) for i in chosen],
                    temperature=sampling.temperature,
                    max_new_tokens=sampling.max_new_tokens,
                    seed=sampling.seed,
                    compiled=self._compile_decoding,
                )
                for i, sampled in zip(chosen, samples, strict=True):
                    for number, one in zip(requests[i].samples, sampled, strict=True):
                        yield Answered(i, number, self._reply(prompts[i], one))

    def _reply(self, prompt: list[int], sampled: Sampled) -> Reply:
        conversation = self._language_model.conversation
        split = split_answer(conversation, prompt, sampled.ids)
        stopped = sampled.finish == "stop" or conversation.stops_inside(conversation.tokenizer.decode(sampled.ids))
        usage = Usage(calls=1, prompt_tokens=len(prompt), completion_tokens=len(sampled.ids))
        problem = ""
        if not split.answer and (split.thoughts or split.unfinished):
            problem = NO_ANSWER if stopped else f"{CUT_IN_THOUGHTS} ({len(sampled.ids)} tokens)"
        return Reply(split.answer, "stop" if stopped else "length", usage, problem, split.thoughts)

    def label_logprobs(self, conversations: Sequence[tuple[Message, ...]], labels: Sequence[str]) -> Iterator[LabelLogprobs]:
        """See `ChatModel`. Exact also for labels of several tokens. None where the model thinks first: its answer comes later."""
        conversation = self._language_model.conversation
        if conversation.thinks:
            yield from (LabelLogprobs(index, None, Usage()) for index in range(len(conversations)))
            return
        label_ids = [conversation.response_ids(label, finished=False) for label in labels]
        groups = [TokenGroup(conversation.prompt_ids(messages), label_ids) for messages in conversations]
        self._require_fit([group.prompt for group in groups], max(map(len, label_ids)))
        for scores in score_groups(self._language_model, groups, self._batch_size):
            logprobs = [response.logprob_nats for response in scores.responses]
            usage = Usage(calls=1, prompt_tokens=len(groups[scores.index].prompt), completion_tokens=1)
            yield LabelLogprobs(scores.index, tuple(_exclusive(label_ids, logprobs)), usage)

    def _require_fit(self, prompts: Sequence[list[int]], new_tokens: int) -> None:
        positions = self._language_model.max_positions
        longest = max(map(len, prompts), default=0)
        if positions is not None and longest + new_tokens > positions:
            raise DataError(
                f"a prompt of {longest} tokens and {new_tokens} new ones exceed the {positions} positions of {self.identity}. "
                "Shorten the template or the answers, lower max_new_tokens, or use a model with more positions."
            )


def split_answer(conversation: Conversation, prompt_ids: Sequence[int], response_ids: Sequence[int]) -> SplitReply:
    """The text of a sampled answer, without the thoughts in front of it."""
    if conversation.layout == "chat":
        marked = conversation.marked_text(response_ids)
        thoughts, answer, unfinished = split_thoughts(marked)
        if answer != marked:
            return SplitReply(thoughts, conversation.without_control_tokens(answer), unfinished)
    return SplitReply("", conversation.response_text(prompt_ids, response_ids), unfinished=False)


def _exclusive(label_ids: Sequence[list[int]], logprobs: Sequence[float]) -> list[float]:
    """Subtract from each label's probability that of longer labels that start with it (`1` and `10`)."""

    def begins(i: int, j: int) -> bool:
        return len(label_ids[i]) < len(label_ids[j]) and label_ids[j][: len(label_ids[i])] == label_ids[i]

    all_labels = range(len(label_ids))
    exclusive = []
    for i in all_labels:
        next_longer = [j for j in all_labels if begins(i, j) and not any(begins(i, k) and begins(k, j) for k in all_labels)]
        rest = math.exp(logprobs[i]) - sum(math.exp(logprobs[j]) for j in next_longer)
        exclusive.append(math.log(max(rest, SMALLEST_PROBABILITY)))
    return exclusive
