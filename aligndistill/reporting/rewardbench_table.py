"""A reward model's metrics on a benchmark, for a terminal."""

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from aligndistill.evaluation.rewardbench import RewardBench
from aligndistill.reporting.writing import share


def rewardbench_table(metrics: RewardBench) -> Table:
    """A line for each subset, then all rows together."""
    table = Table(title=Text(f"{metrics.rows:,} rows"), title_justify="left", caption_justify="left")
    table.box, table.padding, table.show_edge = SIMPLE_HEAD, (0, 1, 0, 0), False
    table.caption = Text(f"[low, high]: 95% interval over prompts. Mean of the subsets: {100 * metrics.mean_of_subsets:.1f}%")
    table.add_column("subset", no_wrap=True)
    table.add_column("right", justify="right", no_wrap=True)
    table.add_column("prompts", justify="right", no_wrap=True)
    for name, score in metrics.subsets.items():
        table.add_row(Text(name), Text(share(score)), Text(f"{score.n:,}"))
    if metrics.accuracy is not None:
        table.add_row(Text("all rows but Ties"), Text(share(metrics.accuracy)), Text(f"{metrics.accuracy.n:,}"))
    return table
