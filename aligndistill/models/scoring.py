"""Given responses read without gradients: log-probabilities for references and the likelihood judge, the evaluation's KL, and the
states of a teacher that is distilled.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aligndistill.models.grouped_model import SHORTEST, batches_by_length
from aligndistill.models.groups import GroupedBatch, TokenGroup, collate
from aligndistill.models.load import LanguageModel
from aligndistill.models.logprobs import (
    HEAD_ELEMENTS,
    at_tokens,
    causal_lm,
    hidden_states,
    logit_chunks,
    paired_logit_chunks,
    places,
    token_logprobs,
)
from aligndistill.models.prompt_sharing import to_device


@dataclass(frozen=True)
class Scored:
    """The summed log-probability of one response, nats, and its number of tokens."""

    logprob_nats: float
    length_tokens: int


@dataclass(frozen=True)
class GroupScores:
    """The scores of one group's responses, with the group's place in the given list."""

    index: int
    responses: list[Scored]


@torch.no_grad()
def score_groups(language_model: LanguageModel, groups: Sequence[TokenGroup], batch_size: int) -> Iterator[GroupScores]:
    """Score groups; yields them in any order."""
    for laid_out in language_model.batches(groups, batch_size):
        sums_BK = token_logprobs(language_model.model, laid_out.batch, laid_out.share).sum(-1).tolist()
        for row, i in enumerate(laid_out.indices):
            lengths = [len(response) for response in groups[i].responses]
            yield GroupScores(i, [Scored(sums_BK[row][k], length) for k, length in enumerate(lengths)])


@torch.no_grad()
def kl_nats(policy: LanguageModel, reference: LanguageModel, groups: Sequence[TokenGroup], batch_size: int) -> list[list[float]]:
    """KL(policy || reference) of each response, nats: the exact divergence of the next-token distributions, summed over positions.

    Averaged over responses sampled from the policy it is the KL of whole responses (the chain rule); taking the exact divergence at
    each position instead of one log-ratio gives the same mean with less variance, and is never negative.

    Only the positions that predict a response token reach the models' heads, a chunk of them at a time.
    """
    sums = summed_over_tokens(policy, reference, groups, batch_size, lambda p_CV, q_CV: _divergence(p_CV, q_CV).unsqueeze(-1))
    return [[response[0] for response in group] for group in sums]


@torch.no_grad()
def summed_over_tokens(
    one: LanguageModel,
    other: LanguageModel,
    groups: Sequence[TokenGroup],
    batch_size: int,
    compare: Callable[[Tensor, Tensor], Tensor],
) -> list[list[list[float]]]:
    """Of each response of each group, M numbers: what a comparison of two models' logits says, summed over the response's tokens.

    Args:
        compare: from the logits of both models, (C, V) each, to (C, M).
    """
    pad_id = one.conversation.pad_id
    apart = one.shares_prompt and other.shares_prompt
    result: list[list[list[float]]] = [[] for _ in groups]
    for indices in batches_by_length([group.tokens(False) for group in groups], batch_size, SHORTEST):
        batch = to_device(collate([groups[i] for i in indices], pad_id, share=False), one.device)
        chunks = paired_logit_chunks((one.model, other.model), batch, apart)
        found_SM = torch.cat([compare(one_CV, other_CV) for one_CV, other_CV in chunks])
        found_BKM = torch.stack([at_tokens(found_S, batch).sum(-1) for found_S in found_SM.unbind(-1)], -1).tolist()
        for row, i in enumerate(indices):
            result[i] = found_BKM[row][: len(groups[i].responses)]
    return result


@torch.no_grad()
def states_and_head(language_model: LanguageModel, batch: GroupedBatch, share: bool) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """What a frozen model's head reads where each response token is predicted, (S, X), and the head.

    Of a model whose backbone and head may not be called separately, these are the logits themselves, a row at a time.

    Args:
        batch: laid out with the same `share`; padded by any id.
    """
    # Another model's padding id may be outside of this one's vocabulary.
    ids_NT = batch.input_ids_NT.where(batch.segments_NT >= 0, language_model.conversation.pad_id)
    batch = replace(batch, input_ids_NT=ids_NT)
    if not language_model.shares_prompt:
        assert not share
        return torch.cat(list(logit_chunks(language_model.model, batch, apart=False))), lambda logits_CV: logits_CV
    rows = {"input_ids_NT": ids_NT, "positions_NT": batch.positions_NT, "segments_NT": batch.segments_NT}
    states_SH = places(hidden_states(language_model.model, **rows, share=share), batch.predictors_S)
    return states_SH, causal_lm(language_model.model).get_output_embeddings()


@dataclass(frozen=True)
class GroupTopK:
    """The k likeliest tokens where each response token of a group is predicted: S tokens, response after response.

    Attributes:
        index: the group's place in the given list.
        log_tail_S: the log of the probability of all other tokens together, nats.
    """

    index: int
    ids_Sk: Tensor
    logps_Sk: Tensor
    log_tail_S: Tensor


@torch.no_grad()
def likeliest_tokens(
    language_model: LanguageModel, groups: Sequence[TokenGroup], batch_size: int, k: int, restricted: Callable[[Tensor], Tensor]
) -> Iterator[GroupTopK]:
    """What a model would say instead of each response token; in any order of the groups.

    Args:
        restricted: the logits of the tokens that count, (C, V) to (C, V'), in the order of their ids.
    """
    chunk = max(HEAD_ELEMENTS // language_model.model.config.get_text_config().vocab_size, 1)
    for laid_out in language_model.batches(groups, batch_size):
        states_SX, head = states_and_head(language_model, laid_out.batch, laid_out.share)
        parts = [_likeliest(restricted(head(states_CX)).float().log_softmax(-1), k) for states_CX in states_SX.split(chunk)]
        ids_Sk, logps_Sk, log_tail_S = (torch.cat(values).cpu() for values in zip(*parts, strict=True))
        sizes = [sum(map(len, groups[i].responses)) for i in laid_out.indices]
        for i, *found in zip(laid_out.indices, *(values.split(sizes) for values in (ids_Sk, logps_Sk, log_tail_S)), strict=True):
            yield GroupTopK(i, *found)


def _likeliest(logps_CV: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    logps_Ck, ids_Ck = logps_CV.topk(k, -1)
    return ids_Ck, logps_Ck, logps_CV.scatter(-1, ids_Ck, -torch.inf).logsumexp(-1)


def _divergence(p_CV: Tensor, q_CV: Tensor) -> Tensor:
    """KL(softmax(p) || softmax(q)) of each row of logits, in float32."""
    log_p_CV, log_q_CV = p_CV.float().log_softmax(-1), q_CV.float().log_softmax(-1)
    return (log_p_CV.exp() * log_p_CV.sub_(log_q_CV)).sum(-1)
