"""Hidden states of chosen layers, against transformers' own."""

from typing import Any

import pytest
import torch
from torch import Tensor

from aligndistill.config.models import Lora
from aligndistill.models.groups import GroupedBatch, collate
from aligndistill.models.layer_states import ProjectedPolicy, captured_states, decoder_layers, states_at_tokens
from aligndistill.models.scoring import states_and_head
from aligndistill.training.adapters import with_adapters
from tests.tiny_models import SHAPES, random_groups, tiny_language_model

GROUPS = random_groups([(7, [4, 6, 1]), (3, [5, 2]), (9, [8])], seed=2)
LAYERS = (0, 1, 2)


def padded_rows(model: Any) -> dict[int, list[Tensor]]:
    """transformers' `hidden_states` where each token of each response is predicted: one padded row for each response."""
    rows = [(group.prompt, response) for group in GROUPS for response in group.responses]
    longest = max(len(prompt) + len(response) for prompt, response in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for n, (prompt, response) in enumerate(rows):
        ids[n, : len(prompt) + len(response)] = torch.tensor(prompt + response)
        mask[n, : len(prompt) + len(response)] = 1
    with torch.no_grad():
        states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    assert len(states) == len(LAYERS)
    return {
        layer: [states[layer][n, len(prompt) - 1 : len(prompt) - 1 + len(response)] for n, (prompt, response) in enumerate(rows)]
        for layer in LAYERS
    }


def in_order_of(batch: GroupedBatch, rows: list[Tensor]) -> Tensor:
    """The rows' tokens as `collate` orders them: prompt after prompt, response after response."""
    assert len(batch.targets_S) == sum(map(len, rows))
    return torch.cat(rows)


@pytest.mark.parametrize(
    ("shape", "share"), [(shape, share) for shape in sorted(SHAPES) for share in {False, shape not in ("gemma2", "mistral_window")}]
)
def test_states_are_those_of_transformers(shape: str, share: bool) -> None:
    """In every layout, also of models that go through their own forward pass a row at a time (`gemma2`, `mistral_window`)."""
    model = tiny_language_model(shape)
    batch = collate(GROUPS, model.conversation.pad_id, share)
    with captured_states(model.model, LAYERS) as captured:
        states_and_head(model, batch, share)
    expected = padded_rows(model.model)
    for layer in LAYERS:
        assert len(captured[layer]) == (1 if model.shares_prompt else 6)
        found = states_at_tokens(captured[layer], batch)
        torch.testing.assert_close(found, in_order_of(batch, expected[layer]), rtol=1e-4, atol=1e-4)
    with captured_states(model.model, [1]) as again:
        pass
    states_and_head(model, batch, share)
    assert again[1] == []  # nothing is kept outside of the block


def test_layers_are_found_inside_of_adapters() -> None:
    model = tiny_language_model().model
    plain = decoder_layers(model)
    assert len(plain) == 2
    assert decoder_layers(with_adapters(model, Lora(r=2), "CAUSAL_LM", 0)) == plain


def test_projections_are_seeded_and_only_where_widths_differ() -> None:
    model = tiny_language_model().model
    pairs = [(0, 0), (1, 2)]
    wider, again, other = (ProjectedPolicy(model, pairs, 24, seed) for seed in (0, 0, 1))
    assert {name: tuple(weight.shape) for name, weight in wider.projections.state_dict().items()} == {
        "0-0.weight": (24, 16),
        "1-2.weight": (24, 16),
    }
    one, two = (projection.weight for projection in wider.projections.values())
    assert torch.equal(one, again.projections["0-0"].weight)
    assert not torch.equal(one, other.projections["0-0"].weight)
    assert not torch.equal(one, two)
    bound = (6 / (16 + 24)) ** 0.5
    assert 0.9 * bound < one.abs().max() <= bound
    assert one.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
    assert not ProjectedPolicy(model, pairs, 16, 0).projections
