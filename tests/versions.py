"""The fast tests with other releases of the libraries: the newest inside the declared ranges, or the declared lower bounds.

`make test-versions` runs both. Each has an environment of its own in the user's cache folder (`XDG_CACHE_HOME`), which is
brought up to date on each call. torch is that of constraints.txt in both: its wheels for CPUs and for each CUDA are on other
indexes.

    python -m tests.versions newest|lowest [--install-only] [pytest arguments]
"""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
FAST = ("-m", "not process", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")


def declared() -> list[Requirement]:
    """What the package needs, with the extra for quantised models."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(text) for text in (*project["dependencies"], *project["optional-dependencies"]["quantised"])]


def lower_bounds() -> Iterator[str]:
    """A constraint for each declared lower bound, torch's aside."""
    for requirement in declared():
        for one in requirement.specifier:
            if one.operator == ">=" and requirement.name != "torch":
                yield f"{requirement.name}=={one.version}"


def pinned_torch() -> str:
    """The line of torch in constraints.txt."""
    return next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))


def environment(which: str) -> Path:
    """The Python of the environment, with the package installed in it as an editable one."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "aligndistill" / "versions" / f"{which}-{sys.version_info.major}.{sys.version_info.minor}"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join([pinned_torch(), *(lower_bounds() if which == "lowest" else ())]) + "\n")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", str(constraints)]
    subprocess.run([*pip, "torch"], check=True)
    upgrade = ["--upgrade", "--upgrade-strategy", "eager"] if which == "newest" else []
    subprocess.run([*pip, *upgrade, "--editable", f"{ROOT}[dev]"], check=True)
    return python


def main(which: str, *arguments: str) -> int:
    """Install, say what is installed, and test; returns pytest's exit code."""
    python = environment(which)
    subprocess.run([str(python), "-m", "pip", "list", "--disable-pip-version-check"], check=True)
    if arguments == ("--install-only",):
        return 0
    tests = [str(python), "-m", "pytest", *(arguments or FAST)]
    return subprocess.run(tests, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
