"""A prompt and its responses as one row of tokens, the prompt computed once.

    row:       p p p p | a a a | b b | c c c c | . .
    segment:   0 0 0 0 | 1 1 1 | 2 2 | 3 3 3 3 | -1 -1
    position:  0 1 2 3 | 4 5 6 | 4 5 | 4 5 6 7 | 0 0

Each response sees the prompt and itself, never another response, and its positions restart after the prompt, so every
response has exactly the log-probabilities of a separate row. A model for which that is not true (see `prompt_sharing`) gets
separate rows instead, in the same batch format.

Shapes: B prompts, K responses each, R tokens per response, N rows, T tokens per row; S is all response tokens, or all responses, in
order. Indices of length S are computed here, on the CPU: computing them from a mask on a GPU would synchronise with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenGroup:
    """A prompt's ids and its responses' ids."""

    prompt: list[int]
    responses: list[list[int]]

    def tokens(self, share: bool) -> int:
        """Tokens that the model computes for this group."""
        written = sum(len(response) for response in self.responses)
        return len(self.prompt) * (1 if share else len(self.responses)) + written


@dataclass(frozen=True)
class GroupedBatch:
    """Rows of tokens, and the positions that predict each response token.

    Attributes:
        input_ids_NT, positions_NT: the input of the model.
        segments_NT: 0 for the prompt, 1.. for responses, -1 for padding.
        predictors_S: for each response token, the index into the flattened rows of the position that predicts it.
        targets_S: the tokens.
        tokens_BKR: which places of the padded responses are tokens.
        ends_S: for each response, the index into the flattened rows of its last token.
        valid_BK: which responses exist.
    """

    input_ids_NT: Tensor
    positions_NT: Tensor
    segments_NT: Tensor
    predictors_S: Tensor
    targets_S: Tensor
    tokens_BKR: Tensor
    ends_S: Tensor
    valid_BK: Tensor

    @property
    def lengths_BK(self) -> Tensor:
        """Tokens per response."""
        return self.tokens_BKR.sum(-1)


def sharing_pays(groups: Sequence[TokenGroup], hidden_size: int, grouped: bool) -> bool:
    """Whether rows that share their prompt cost less than separate ones.

    Per layer a row of T tokens costs about 24 H^2 T in its matrices and 4 H for each pair of tokens in its attention: T^2 / 2 in a
    separate row, T^2 under a mask, and the count of `attention` if masked pairs are skipped (`grouped`).
    """

    def apart(group: TokenGroup) -> float:
        lengths = [len(group.prompt) + len(response) for response in group.responses]
        return sum(length * (6 * hidden_size + length / 2) for length in lengths)

    def shared(group: TokenGroup) -> float:
        tokens = group.tokens(share=True)
        pairs: float = tokens**2
        if grouped:
            prompt, lengths = len(group.prompt), [len(response) for response in group.responses]
            pairs = prompt**2 / 2 + sum(prompt * length + length**2 / 2 for length in lengths)
        return tokens * 6 * hidden_size + pairs

    return sum(map(shared, groups)) < sum(map(apart, groups))


def collate(groups: Sequence[TokenGroup], pad_id: int, share: bool) -> GroupedBatch:
    """Lay groups out as rows: one row per group when they `share` the prompt, else one row per response."""
    assert all(group.prompt and all(group.responses) for group in groups), "empty prompt or response"
    rows: list[list[int]] = []
    positions: list[list[int]] = []
    segments: list[list[int]] = []
    starts: list[list[tuple[int, int, int]]] = []  # per response: row, index of its first token, index of its predictor
    for group in groups:
        starts.append([])
        prompt_length = len(group.prompt)
        for number, response in enumerate(group.responses):
            if number == 0 or not share:
                rows.append(list(group.prompt))
                positions.append(list(range(prompt_length)))
                segments.append([0] * prompt_length)
            starts[-1].append((len(rows) - 1, len(rows[-1]), prompt_length - 1))
            rows[-1] += response
            positions[-1] += range(prompt_length, prompt_length + len(response))
            segments[-1] += [number + 1 if share else 1] * len(response)

    width = max(len(row) for row in rows)
    predictors: list[int] = []
    targets: list[int] = []
    ends: list[int] = []
    for group, of_group in zip(groups, starts, strict=True):
        for response, (row, first, before) in zip(group.responses, of_group, strict=True):
            origin, last = row * width, first + len(response) - 1
            predictors += [origin + before, *range(origin + first, origin + last)]
            targets += response
            ends.append(origin + last)
    lengths_BK = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor([len(response) for response in group.responses]) for group in groups], batch_first=True
    )

    def padded(lists: list[list[int]], filler: int) -> Tensor:
        return torch.tensor([row + [filler] * (width - len(row)) for row in lists])

    return GroupedBatch(
        input_ids_NT=padded(rows, pad_id),
        positions_NT=padded(positions, 0),
        segments_NT=padded(segments, -1),
        predictors_S=torch.tensor(predictors),
        targets_S=torch.tensor(targets),
        tokens_BKR=torch.arange(int(lengths_BK.max())) < lengths_BK.unsqueeze(-1),
        ends_S=torch.tensor(ends),
        valid_BK=lengths_BK > 0,
    )


def attention_mask(segments_NT: Tensor, dtype: torch.dtype) -> Tensor:
    """The additive mask (N, 1, T, T) under which each response sees the prompt and itself, causally.

    Padding sees itself, so that no row of the softmax is empty (it would become NaN in half precision); its output is not used.
    """
    rows_N, places_T = (torch.arange(size, device=segments_NT.device) for size in segments_NT.shape)
    allowed_NTT = sees(segments_NT, rows_N.view(-1, 1, 1), places_T.unsqueeze(1), places_T)
    return additive(~allowed_NTT, dtype).unsqueeze(1)


def sees(segments_NT: Tensor, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Whether one place of a row sees another, for indices that broadcast: the rule of every mask for shared rows."""
    segment = segments_NT[row, key]
    same = (segment == 0) | (segment == segments_NT[row, query])
    return (key <= query) & same & (segment >= 0) | (query == key)


def additive(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """The additive attention mask from the forbidden places."""
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill(hidden, torch.finfo(dtype).min)
