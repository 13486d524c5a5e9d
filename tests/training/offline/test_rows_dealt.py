"""Which rows of an optimiser step are a process's own, and which accelerate repeats."""

from itertools import product

import pytest
from accelerate.data_loader import BatchSamplerShard, SkipBatchSampler
from torch.utils.data import BatchSampler

from aligndistill.training.offline.trainer import rows_dealt


@pytest.mark.parametrize("finished", [0, 1, 2])
def test_each_row_counts_in_one_process_and_in_the_step_in_which_it_comes_first(finished: int) -> None:
    """`finished`: steps before a resume within an epoch; the loader skips them."""
    for size, accumulation, processes, total in product((1, 2, 3, 4), (1, 2, 3), (1, 2, 3, 4), range(1, 53)):
        whole = size * accumulation * processes
        steps_per_epoch = -(-total // whole)
        found: dict[int, list[int]] = {}
        for process in range(processes):
            shard = BatchSamplerShard(BatchSampler(range(total), size, drop_last=False), processes, process)
            batches = list(iter(SkipBatchSampler(shard, skip_batches=finished * accumulation)))  # it has no length below 0
            for step, start in enumerate(range(0, len(batches), accumulation), finished):
                rows = [row for batch in batches[start : start + accumulation] for row in batch]
                split = {"size": size, "accumulation": accumulation, "processes": processes}
                counted = rows_dealt(total, step, process, **split)
                assert counted == rows_dealt(total, step + 3 * steps_per_epoch, process, **split)
                found.setdefault(step, []).extend(rows[:counted])
        assert list(found) == list(range(finished, steps_per_epoch))
        for step, rows in found.items():
            assert sorted(rows) == list(range(step * whole, min((step + 1) * whole, total)))
