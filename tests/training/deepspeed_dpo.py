"""Three steps of DPO under whatever launcher started this: `... -m tests.training.deepspeed_dpo FOLDER [DEEPSPEED_CONFIG]`."""

import json
import sys
from pathlib import Path

from aligndistill.training.distributed import choose_accelerator, is_main_process

choose_accelerator()

from aligndistill.config import Dpo  # noqa: E402
from aligndistill.training.align import train_policy  # noqa: E402
from tests.tiny_models import ragged_rankings, ranking_examples, tiny_job, tiny_language_model  # noqa: E402


def main(folder: Path, deepspeed: str | None) -> None:
    policy = tiny_language_model()
    examples = ranking_examples(policy.conversation, ragged_rankings(), reference=tiny_language_model())
    # A batch is all the data, so that the order does not matter.
    job = tiny_job(folder, runtime={"per_device_train_batch_size": 2, "deepspeed": deepspeed})
    trained = train_policy(policy, Dpo(kind="dpo"), None, examples, job)
    if is_main_process():
        processes = trained.trainer.accelerator.num_processes
        (folder / "result.json").write_text(json.dumps({"log": trained.log, "processes": processes}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
