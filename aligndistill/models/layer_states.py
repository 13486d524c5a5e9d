"""Hidden states in chosen layers, numbered as transformers' `hidden_states`: 0 is the embeddings, n what comes out of the n-th
layer (of the last one, behind the final norm).

Hooks keep what the chosen layers are given; states of other layers are kept no longer than without them.

Shapes: N rows, T tokens per row, H hidden size, S scored tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from aligndistill.models.groups import GroupedBatch
from aligndistill.models.logprobs import causal_lm, places
from aligndistill.models.policy_module import PolicyModule


def decoder_layers(model: Any) -> list[Any]:
    """The decoder layers of a causal language model, plain or peft, in their order."""
    parts = causal_lm(model).base_model.children()
    return [layer for part in parts if isinstance(part, torch.nn.ModuleList) for layer in part]


@contextmanager
def captured_states(model: Any, layers: Sequence[int]) -> Iterator[Mapping[int, list[Tensor]]]:
    """What the model's forward passes inside the block compute in these layers: for each, states_NTH of each pass."""
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    inputs = decoder_layers(model)

    def keep_input(layer: int) -> Any:
        # It comes first: DeepSpeed's hooks replace what a layer is given by something that starts the layer's backward pass.
        def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found[layer].append(args[0] if args else kwargs["hidden_states"])

        return inputs[layer].register_forward_pre_hook(before, prepend=True, with_kwargs=True)

    def keep_last(module: Any, args: Any, output: Any) -> None:
        found[len(inputs)].append(output.last_hidden_state)

    with ExitStack() as hooks:
        for layer in found:
            is_last = layer == len(inputs)
            hook = causal_lm(model).base_model.register_forward_hook(keep_last) if is_last else keep_input(layer)
            hooks.callback(hook.remove)
        yield found


def states_at_tokens(captured: Sequence[Tensor], batch: GroupedBatch) -> Tensor:
    """The states where each response token is predicted, (S, H).

    Args:
        captured: of one forward pass of the whole batch; or, of separate rows, of one pass for each without its padding
            (`logprobs.logit_chunks`).
    """
    if len(captured) == 1:
        return places(captured[0], batch.predictors_S)
    written = batch.lengths_BK[batch.valid_BK].tolist()
    return torch.cat([states_1TH[0, -count - 1 : -1] for states_1TH, count in zip(captured, written, strict=True)])


class ProjectedPolicy(PolicyModule):
    """A policy that also tells its states at the scored tokens, projected to another width.

    Args:
        layers: which, as pairs with the other model's.
        width: the other model's hidden size. Where it is the policy's there are no projections.
        seed: of the projections: linear, without a bias (Glorot and Bengio 2010, AISTATS, eq. 16).
    """

    def __init__(self, policy: Any, layers: Sequence[tuple[int, int]], width: int, seed: int) -> None:
        super().__init__(policy)
        self.layers = tuple(layers)
        self.projections = torch.nn.ModuleDict()
        own, generator = policy.config.get_text_config().hidden_size, torch.Generator().manual_seed(seed)
        for student, teacher in self.layers if width != own else ():
            projection = torch.nn.Linear(own, width, bias=False)
            torch.nn.init.xavier_uniform_(projection.weight, generator=generator)
            self.projections[f"{student}-{teacher}"] = projection.to(next(policy.parameters()).device)

    def forward(self, **inputs: Any) -> tuple[Tensor, ...]:
        """What the policy returns for a grouped batch, and states_SH of each pair of layers."""
        with captured_states(self.policy, [student for student, _ in self.layers]) as captured:
            outputs = self.policy(**inputs)
        return *outputs, *(self._projected(*pair, captured, inputs["predictors_S"]) for pair in self.layers)

    def _projected(self, student: int, teacher: int, captured: Mapping[int, list[Tensor]], predictors_S: Tensor) -> Tensor:
        states_SH = places(captured[student][0], predictors_S)
        if not self.projections:
            return states_SH
        projection = self.projections[f"{student}-{teacher}"]
        projected_SH: Tensor = projection(states_SH.to(next(projection.parameters()).dtype))
        return projected_SH
