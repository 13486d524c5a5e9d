"""Peers live in environments of their own, installed from the package index with this project's versions of everything else."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "benchmarks" / ".envs"

PEERS = {
    "trl-1.16": ("trl==1.16.0", "peft"),
    "trl-1.12": ("trl==1.12.0",),
    "liger-0.8": ("liger-kernel==0.8.5", "triton==3.9.0", "trl==1.16.0"),
}
"""Environment -> what is of its own in it. 1.12.0 is the last TRL that has a PPOTrainer (in `trl.experimental.ppo`). Liger imports
triton, also where its kernels are not used."""

OURS = "ours"


def python_of(environment: str) -> Path:
    """The environment's interpreter; installs the environment where it is missing, or lacks a package."""
    if environment == OURS:
        return Path(sys.executable)
    folder = FOLDER / environment
    python = folder / "bin" / "python"
    finished, own = folder / ".installed", PEERS[environment]
    if not finished.exists() or finished.read_text().split() != [*own]:
        print(f"installing {environment} into {folder.relative_to(ROOT)}", file=sys.stderr)
        constraints = folder / "constraints.txt"
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pinned = (ROOT / "constraints.txt").read_text().splitlines()
        constraints.write_text("\n".join(line for line in pinned if not line.startswith("trl==")) + "\n")
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", str(constraints)]
        # torch by itself first, as `make install` does: the index may offer several builds of the pinned version.
        subprocess.run([*install, "torch"], check=True)
        subprocess.run([*install, *own, "transformers", "accelerate", "datasets", "pandas"], check=True)
        finished.write_text(" ".join(own))
    return python
