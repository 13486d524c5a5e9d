"""Operations counted by hand, and the sizes of two known models."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks import matrix_rate
from benchmarks.flops import attention_flops, dpo_flops, generation_flops, layer_parameters
from benchmarks.gpu_rows import LLAMA_8B, QWEN_HALF_B
from benchmarks.worlds import Shape

SMALL = Shape(10, hidden=4, layers=2, heads=2, key_value_heads=1, intermediate=6)
# A layer: queries and output 2 * 4 * 4 = 32, keys and values 2 * 4 * 2 = 16, MLP 3 * 4 * 6 = 72; together 120, twice 240.


def test_parameters_of_the_layers() -> None:
    assert layer_parameters(SMALL) == 240
    model = AutoModelForCausalLM.from_config(SMALL.config())
    assert layer_parameters(SMALL) == sum(p.numel() for n, p in model.named_parameters() if "_proj" in n)


def test_the_shapes_are_those_of_the_models_they_are_named_after() -> None:
    norms, biases = (2 * 24 + 1) * 896, 24 * (896 + 2 * 128)
    assert layer_parameters(QWEN_HALF_B) + 151_936 * 896 + norms + biases == 494_032_768  # Qwen2.5-0.5B; our Llama has no biases
    norms = (2 * 32 + 1) * 4096
    assert layer_parameters(LLAMA_8B) + 2 * 128_256 * 4096 + norms == 8_030_261_248  # Llama-3.1-8B


def test_attention_counts_what_a_token_sees() -> None:
    # Prompt of 3: 1 + 2 + 3 = 6 pairs. A response of 2: 4 + 5 = 9; of 1: 4, as it does not see the other.
    assert attention_flops(SMALL, 3, [2, 1]) == 4 * 2 * 4 * (6 + 9 + 4)


@pytest.mark.parametrize(("adapters", "passes_of_matrices"), [(False, 3 + 1), (True, 2 + 1)])
def test_dpo_counts_the_prompt_once_and_the_head_for_responses_alone(adapters: bool, passes_of_matrices: int) -> None:
    matrices = 2 * (240 * (3 + 2 + 1) + 4 * 10 * (2 + 1))  # 3120
    attention = 4 * 2 * 4 * 19  # 608
    row = {"prompt": [5, 6, 7], "responses": [[8, 1], [1]]}
    assert dpo_flops(SMALL, row, adapters) == passes_of_matrices * matrices + 4 * attention


def test_generation_reads_all_but_the_last_token_and_scores_the_new_ones() -> None:
    # Prompt of 3 and 2 new tokens: 4 are read (1 + 2 + 3 + 4 = 10 pairs), 2 are predicted.
    assert generation_flops(SMALL, 3, 2) == 2 * (240 * 4 + 40 * 2) + 4 * 2 * 4 * 10


def test_a_matrix_rate_is_operations_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(100))
    monkeypatch.setattr(matrix_rate, "now", lambda: float(next(ticks)))  # so ten products take a second
    assert matrix_rate.matrix_rate(8, torch.float32, "cpu") == 10 * 2 * 8**3
