"""Trainers of a policy with what is trained beside it (`models/policy_module.py`)."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from aligndistill.training.checkpointing import CheckpointedTrainer

WEIGHTS = "model.safetensors"


class PolicyModuleTrainer(CheckpointedTrainer):
    """A mixin for a `transformers.Trainer` of a `PolicyModule`; it comes first in the list of bases.

    Checkpoints hold all that is trained. The policy alone is saved as a Hugging Face folder.
    """

    deepspeed: Any
    is_deepspeed_enabled: bool

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write the trained weights into a checkpoint."""
        assert output_dir is not None
        if not self.args.should_save:
            return
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        weights = self.model.state_dict() if state_dict is None else state_dict
        trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        save_file({name: weights[name].contiguous() for name in sorted(trained)}, folder / WEIGHTS, {"format": "pt"})

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the weights of a checkpoint (`_internal_call`), or the policy alone as a Hugging Face folder."""
        if _internal_call:
            super().save_model(output_dir, _internal_call=True)  # type: ignore[misc]
            return
        whole = self.is_deepspeed_enabled
        weights = self.accelerator.get_state_dict(self.deepspeed) if whole else self.model.state_dict()
        if self.args.should_save:
            of_policy = {name.removeprefix("policy."): value for name, value in weights.items() if name.startswith("policy.")}
            self.model.policy.save_pretrained(output_dir, state_dict=of_policy)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        found = self.model.load_state_dict(load_file(Path(resume_from_checkpoint) / WEIGHTS), strict=False)
        assert not found.unexpected_keys, f"the checkpoint is of another model: {found.unexpected_keys[:3]}"
