import pytest
import torch

from aligndistill.models.groups import TokenGroup
from aligndistill.models.vocabulary import SharedVocabulary
from aligndistill.stages.fidelity import followed
from aligndistill.training.offline.distillation import LiveTeacher
from tests.models.test_scoring import GROUPS, kl_by_hand
from tests.tiny_models import tiny_language_model

ALONE = [TokenGroup(group.prompt, [response]) for group in GROUPS for response in group.responses]


@pytest.mark.parametrize("shape", ["llama", "gemma2"])
def test_agreement_is_of_the_likeliest_tokens_with_both_divergences(shape: str) -> None:
    one, other = tiny_language_model(shape, seed=0), tiny_language_model(shape, seed=1)
    teacher = LiveTeacher(other, SharedVocabulary(frozenset()))
    found = followed(one, teacher, ALONE, 2)
    for group, (same_first, kl_forward_nats, kl_reverse_nats) in zip(ALONE, found, strict=True):
        (response,) = group.responses
        assert kl_reverse_nats == pytest.approx(kl_by_hand(one.model, other.model, group, response), rel=1e-4)
        assert kl_forward_nats == pytest.approx(kl_by_hand(other.model, one.model, group, response), rel=1e-4)
        with torch.no_grad():
            ids = torch.tensor([group.prompt + response])
            first_T, second_T = (model.model(input_ids=ids).logits[0].argmax(-1) for model in (one, other))
        scored = slice(len(group.prompt) - 1, -1)
        assert same_first == float((first_T[scored] == second_T[scored]).sum())

    together, start = followed(one, teacher, GROUPS, 2), 0
    for group, sums in zip(GROUPS, together, strict=True):
        of_group = found[start : start + len(group.responses)]
        start += len(group.responses)
        assert sums == pytest.approx([sum(values) for values in zip(*of_group, strict=True)], rel=1e-4)


def test_a_model_agrees_with_itself_also_where_some_tokens_are_not_shared() -> None:
    model = tiny_language_model(seed=0)
    found = followed(model, LiveTeacher(model, SharedVocabulary(frozenset({3, 4}))), ALONE, 2)
    for group, sums in zip(ALONE, found, strict=True):
        assert sums == (len(group.responses[0]), 0.0, 0.0)
