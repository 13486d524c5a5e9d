"""`python -m benchmarks [NAME ...]`: run rows and write what they say."""

import argparse
import json
import os
import platform
import re
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.environments import ROOT
from benchmarks.growth import all_curves, plot, run_curve
from benchmarks.measure import SideFailed, environment_versions, run_row
from benchmarks.rows import all_rows
from benchmarks.table import table

RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="The same work done here and by others, side by side."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="rows to run, or the beginning of their names; all by default")
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes on the CPU: shows that all runs and agrees, times mean nothing"
    )
    parser.add_argument("--rounds", type=int, help="turns of each side (3; 1 with --quick)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each side (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="folder for the JSON (benchmarks/results; results/local with --quick)")
    arguments = parser.parse_args()
    if arguments.quick:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    rows = all_rows(arguments.quick)
    curves = all_curves(arguments.quick)
    names = [*rows, *curves]
    if arguments.list:
        print("\n".join(names))
        return
    chosen = [name for name in names if not arguments.names or any(name.startswith(asked) for asked in arguments.names)]
    unknown = [asked for asked in arguments.names if not any(name.startswith(asked) for name in names)]
    if unknown:
        parser.error(f"no row is called {', '.join(unknown)}; --list names them")
    folder = arguments.results or (RESULTS / "local" if arguments.quick else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{date.today()}-{machine_name()}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"rows": {}}
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    found["machine"] = machine()
    found.setdefault("versions", {})
    failed = []
    for name in chosen:
        started = time.monotonic()
        print(f"{name}", flush=True)
        if name in curves:
            found.setdefault("growth", {})[name] = run_curve(curves[name], arguments.threads, lambda line: print(line, flush=True))
            plot(found["growth"][name], path.with_name(f"{path.stem}-{name}.svg"))
            path.write_text(json.dumps(found, indent=1) + "\n")
            continue
        row = rows[name]()
        if row.gpu and not arguments.quick and not torch.cuda.is_available():
            print("  skipped: it needs a GPU, and there is none here", flush=True)
            continue
        try:
            result = run_row(row, rounds, arguments.threads, lambda line: print(line, flush=True))
        except SideFailed as failure:
            print(f"  {failure}", file=sys.stderr)
            failed.append(name)
            continue
        result |= {"wall_seconds": time.monotonic() - started, "threads": arguments.threads, "quick": arguments.quick}
        for side in (row.ours, *row.peers):
            found["versions"].setdefault(side.environment, environment_versions(side.environment))
        found["rows"][name] = result
        # After every row: what is measured stays measured.
        path.write_text(json.dumps(found, indent=1) + "\n")
    if path.exists():
        text = table(found)
        path.with_suffix(".md").write_text(text)
        print(text)
        print(f"written to {path} and {path.with_suffix('.md').name}")
    if failed:
        sys.exit(f"these rows failed: {', '.join(failed)}")


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = re.findall(r"model name\s*: (.*)", info.read_text())
        cpu = models[0] if models else cpu
    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "gpus": gpus,
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def machine_name() -> str:
    """Short, for a file's name; says nothing of whose machine it is."""
    facts = machine()
    return re.sub(
        r"[^a-z0-9]+", "-", f"{facts['gpus'][0] if facts['gpus'] else facts['cpu']} {facts['cores']} cores".lower()
    ).strip("-")


if __name__ == "__main__":
    main()
