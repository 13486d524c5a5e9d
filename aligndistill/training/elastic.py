"""A checkpoint under ZeRO for another number of processes: DeepSpeed's universal checkpoint, which has every parameter whole.

A ZeRO checkpoint holds one shard of the optimiser's states for each process that wrote it. DeepSpeed converts it to one file for
each parameter and state, of which any number of processes loads its own shards (Lian et al. 2024, "Universal Checkpointing").
"""

import contextlib
import io
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from aligndistill.processes.progress import say
from aligndistill.processes.ranks import is_main_process

CONVERTED = "converted-"


def converted(checkpoint: Path, trainer: Any) -> Path:
    """A copy of a checkpoint whose shards fit any number of processes, for `trainer` to resume from. A collective call.

    The copy is beside the checkpoint, and is no checkpoint itself. Converting needs the time and the disk space of a save.
    """
    copy = checkpoint.parent / f"{CONVERTED}{checkpoint.name}"
    if is_main_process():
        say(f"  converting {checkpoint.name} for {trainer.accelerator.num_processes} processes")
        remove_converted(checkpoint.parent)
        _convert(checkpoint, copy)
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.state.deepspeed_plugin.deepspeed_config.setdefault("checkpoint", {})["load_universal"] = True
    return copy


def after_loading(trainer: Any) -> None:
    """Delete the copy that the trainer was loaded from, if it was. A collective call."""
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    if plugin is None or not plugin.deepspeed_config.get("checkpoint", {}).pop("load_universal", None):
        return
    trainer.deepspeed._config.load_universal_checkpoint = False  # further checkpoints that it loads are ordinary ones
    if plugin.zero_stage == 3:
        _repair_optimizer(trainer)
    trainer.accelerator.wait_for_everyone()
    if is_main_process():
        remove_converted(Path(trainer.args.output_dir))


def _repair_optimizer(trainer: Any) -> None:
    """Two defects of DeepSpeed 0.19's loading under ZeRO-3.

    All groups of parameters get the settings (weight decay, learning rate) of the first one; and their states share one tensor for
    the number of steps, which each of them then increments.
    """
    (file,) = Path(trainer.args.output_dir).glob(f"{CONVERTED}*/global_step*/zero/optimizer_state.pt")
    # Not weights alone: the file holds DeepSpeed's own objects. `_convert` wrote it, from a verified checkpoint of this run.
    saved = torch.load(file, map_location="cpu", weights_only=False)["optimizer_state_dict"]["param_groups"]
    optimizer = trainer.deepspeed.optimizer.optimizer
    assert len(saved) == len(optimizer.param_groups), "the checkpoint is of another optimiser"
    for group, then in zip(optimizer.param_groups, saved, strict=True):
        group |= {name: value for name, value in then.items() if name != "params"}
    for state in optimizer.state.values():
        if isinstance(state.get("step"), torch.Tensor):
            state["step"] = state["step"].clone()


def remove_converted(folder: Path) -> None:
    """Delete the copies of converted checkpoints."""
    for copy in folder.glob(f"{CONVERTED}*"):
        shutil.rmtree(copy)


def _convert(checkpoint: Path, copy: Path) -> None:
    from deepspeed.checkpoint.ds_to_universal import main  # only here: importing it takes seconds

    (shards,) = checkpoint.glob("global_step*")
    shutil.copytree(checkpoint, copy, ignore=shutil.ignore_patterns(shards.name, "latest"))
    arguments = Namespace(
        input_folder=str(shards),
        output_folder=str(copy / shards.name),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # it prints its every step
        main(arguments)
