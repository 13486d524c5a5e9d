from hypothesis import given
from hypothesis import strategies as st

from aligndistill.data.split import split_of
from aligndistill.records import content_hash

shares = st.floats(min_value=0, max_value=1)


@given(st.text(), shares, shares)
def test_raising_held_out_only_moves_prompts_out_of_training(prompt_id: str, one: float, other: float) -> None:
    smaller, larger = sorted((one, other))
    if split_of(prompt_id, smaller) == "held_out":
        assert split_of(prompt_id, larger) == "held_out"


@given(st.text())
def test_the_ends_of_the_scale(prompt_id: str) -> None:
    assert split_of(prompt_id, 0.0) == "train"
    assert split_of(prompt_id, 1.0) == "held_out"


def test_the_share_is_what_was_asked_for() -> None:
    ids = [content_hash(str(number)) for number in range(20_000)]
    held_out = sum(split_of(prompt_id, 0.1) == "held_out" for prompt_id in ids)
    assert 1830 <= held_out <= 2170  # 2000, plus or minus four standard deviations of sqrt(20000 * 0.1 * 0.9) = 42


def test_a_split_made_today_is_the_split_of_tomorrow() -> None:
    # First digit of `printf "5:split1:a" | sha256sum` for a to h, of 16: below 8 is below one half.
    assert [split_of(name, 0.5) for name in "abcdefgh"] == ["held_out" if int(digit, 16) < 8 else "train" for digit in "f7fefae7"]
