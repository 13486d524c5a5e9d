"""The rows of distillation and of SimPO, ORPO and KTO."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, Side
from benchmarks.worlds import Rows, Shape, write_language_model

TINY = Shape(512, hidden=32, layers=2)

DISTIL_SAYS = (
    "JSD with beta 0.5 of student and teacher (twice the student's width) at every token of given responses, no other term, the"
    " teacher in memory. Both trainers of TRL learn from what the student samples; here the rows' responses take the place of "
    "the samples, and no sampling is timed. GKD is patched: as released it divides the loss of sampled responses by the token "
    "count of the data set's own (`distil-sampled-count`). Liger gets the response tokens alone, in chunks of 1,024, "
    "uncompiled."
)

COUNT_SAYS = (
    "GKD on sampled responses four times as long as the data set's own: as released its loss is 4 times ours, patched the same. "
    "Gradient norms are before clipping."
)

SAYS = {
    "simpo": "TRL without the NLL term that it adds by default.",
    "orpo": "TRL's NLL is over prompt and response; for this row it is over the response, as ours. TRL computes the same arrays in "
    "either case.",
    "kto": "Both sides get the same mismatched pairs: TRL has one for each response, so each pair twice. TRL computes the "
    "reference in every step; here it is computed in advance, and its time added to the steps that use it.",
}

OPTIONS: Mapping[str, Mapping[str, float]] = {
    "simpo": {"beta": 2.0, "gamma_beta_ratio": 0.5},
    "orpo": {"odds_weight": 0.1},
    "kto": {"beta": 0.1},
}

NAMES = {"simpo": "SimPO", "orpo": "ORPO", "kto": "KTO"}
TRAINERS = {"simpo": "CPOTrainer", "orpo": "ORPOTrainer", "kto": "KTOTrainer"}


def student_rows(quick: bool) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Names and what makes each row."""
    for vocabulary in (2_048, 32_000, 151_936):
        yield f"distil-v{vocabulary}", partial(_distil, vocabulary, quick)
    yield "distil-sampled-count", _sampled_count
    for vocabulary in (2_048, 32_000):
        for objective in OPTIONS:
            yield f"{objective}-v{vocabulary}", partial(_preference, objective, vocabulary, quick)


def _with_teacher(shape: Shape, rows: Rows) -> Callable[[Path], None]:
    def make_world(folder: Path) -> None:
        write_language_model(folder / "policy", shape)
        write_language_model(folder / "teacher", Shape(**{**vars(shape), "hidden": 2 * shape.hidden}), seed=1)
        rows.write(folder / "rows.jsonl")

    return make_world


def _distil(vocabulary: int, quick: bool) -> Row:
    batch, steps, warm_up = {2_048: (8, 6, 2), 32_000: (4, 4, 1), 151_936: (2, 3, 1)}[vocabulary]
    shape = TINY if quick else Shape(vocabulary, tied=vocabulary > 100_000)  # as the models that have such vocabularies
    prompt, response = (32, 8) if quick else (256, 64)
    return Row(
        name=f"distil-v{vocabulary}",
        title=f"distillation, {prompt}/{response} tokens, vocabulary {shape.vocabulary:,}",
        make_world=_with_teacher(shape, Rows(batch * steps, prompt, response, 1, shape.vocabulary)),
        ours=Side("aligndistill", "ours", "ours_offline:distilled"),
        peers=[
            Side("TRL 1.16 DistillationTrainer's loss", "trl-1.16", "trl_distil:distillation_trainer"),
            Side("TRL 1.16 GKDTrainer, patched", "trl-1.16", "trl_distil:gkd"),
            Side("Liger 0.8.5 fused JSD", "liger-0.8", "trl_distil:liger"),
        ],
        settings={"learning_rate": 1e-4, "batch": batch, "steps": steps, "warm_up": warm_up},
        aims=">= 1x the fastest, <= 1/3 of its memory",
        says=DISTIL_SAYS,
    )


def _sampled_count() -> Row:
    settings = {"learning_rate": 1e-4, "batch": 4, "steps": 2, "warm_up": 0, "shown": 0.25}
    return Row(
        name="distil-sampled-count",
        title="GKD's loss of sampled responses",
        make_world=_with_teacher(TINY, Rows(8, 32, 8, 1, TINY.vocabulary)),
        ours=Side("aligndistill", "ours", "ours_offline:distilled"),
        peers=[
            Side("TRL 1.16 GKDTrainer, patched", "trl-1.16", "trl_distil:gkd"),
            Side("TRL 1.16 GKDTrainer", "trl-1.16", "trl_distil:gkd", {"unpatched": True}, same_curve=False),
        ],
        settings=settings,
        says=COUNT_SAYS,
        timed=False,
    )


def _preference(objective: str, vocabulary: int, quick: bool) -> Row:
    batch, steps, warm_up = (6, 6, 2) if vocabulary == 2_048 else (4, 3, 1)
    shape = TINY if quick else Shape(vocabulary)
    prompt, response = (32, 8) if quick else (256, 64)
    settings: dict[str, Any] = {"objective": objective, "options": dict(OPTIONS[objective]), "learning_rate": 1e-4}

    def make_world(folder: Path) -> None:
        write_language_model(folder / "policy", shape)
        Rows(batch * steps, prompt, response, 2, shape.vocabulary).write(folder / "rows.jsonl")

    return Row(
        name=f"{objective}-v{vocabulary}",
        title=f"{NAMES[objective]}, {prompt}/{response} tokens, vocabulary {shape.vocabulary:,}",
        make_world=make_world,
        ours=Side("aligndistill", "ours", "ours_offline:policy"),
        peers=[Side(f"TRL 1.16 {TRAINERS[objective]}, tuned", "trl-1.16", f"trl_preference:{objective}")],
        settings={**settings, "batch": batch, "steps": steps, "warm_up": warm_up},
        aims=">= 2x" if vocabulary == 2_048 else ">= 4x",
        says=SAYS[objective],
    )
