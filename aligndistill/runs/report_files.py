"""What a run's folder adds to the report of its last stage: how the run was made, people's votes, and the pages of verdicts.

None of it is part of a fingerprint. The files are written when what they are made of has changed, which is told by a hash in them.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from aligndistill.config.paths import at_home
from aligndistill.processes.progress import say
from aligndistill.records import Candidate, Verdict, group_by_prompt, plain_prompt
from aligndistill.runs.files import EVENTS, SPENT
from aligndistill.runs.provenance import spent_by_stage
from aligndistill.runs.votes import measured_votes, vote_files
from aligndistill.stages.audit import judged_prompts, read_labelling
from aligndistill.stages.files import SCORED, VERDICTS_PAGE, prompts_folder, read_verdicts
from aligndistill.stages.model_sizes import parameters_in, parameters_of
from aligndistill.stages.report import MACHINE, STUDENTS
from aligndistill.stages.scored_answers import ScoredAnswer, answer_key
from aligndistill.store.artifacts import MANIFEST, read_manifest
from aligndistill.store.jsonl import read_jsonl
from aligndistill.store.run_folder import of_rounds

if TYPE_CHECKING:
    from aligndistill.config.run import RunConfig
    from aligndistill.reporting.about import About
    from aligndistill.reporting.report import Report
    from aligndistill.reporting.verdicts_page import JudgedPrompt

FORMAT = 2
"""To be increased when the same input gives other files."""


def write_report_files(config: "RunConfig", folder: Path, folders: Mapping[str, Path]) -> None:
    """Write `report.json` and `report.html` of a complete run, unless they are up to date.

    Args:
        folders: of all finished stages, by name.
    """
    made_of = _hash(
        [FORMAT, str(folder), *((name, path.name) for name, path in folders.items())],
        *(path / MANIFEST for path in folders.values()),  # a stage that was made again has other bytes, or took another time
        *(path for path in (*vote_files(folder), folder / SPENT)),
    )
    paths = [folder / name for name in ("report.html", "report.json")]
    if all(path.is_file() for path in paths) and json.loads(paths[1].read_bytes()).get("made_of") == made_of:
        return
    from aligndistill.reporting.inserts import with_inserts
    from aligndistill.reporting.report import read_report, write_report

    report = read_report(folders["report"] / "report.json")
    added = {"about": _about(config, report, folder, folders), "votes": measured_votes(folder), "made_of": made_of}
    report = report.model_copy(update=added)
    page = (folders["report"] / "report.html").read_text(encoding="utf-8")
    paths[0].write_text(with_inserts(page, report, str(folder)), encoding="utf-8")
    write_report(paths[1], report)


def link_students(folder: Path, folders: Mapping[str, Path]) -> None:
    """Make `students/NAME` in the run's folder a link to the model of each trained student, and drop links of others."""
    wanted = {name.removeprefix("student-"): path for name, path in folders.items() if name.startswith("student-")}
    links = folder / STUDENTS
    if wanted:
        links.mkdir(exist_ok=True)
    for link in links.iterdir() if links.is_dir() else ():
        if link.is_symlink() and link.name not in wanted:
            link.unlink()
    for name, path in wanted.items():
        link, target = links / name, os.path.relpath((path / "model").absolute(), links.absolute())
        if link.is_symlink() and os.readlink(link) != target:
            link.unlink()
        if not link.is_symlink() and not link.exists():
            link.symlink_to(target)
        elif not link.is_symlink():
            say(f"  {link} is not a link and is left as it is; the student's model is in {path / 'model'}")


def write_verdicts(run: str, folder: Path, folders: Mapping[str, Path]) -> None:
    """Write the pages of verdicts, unless they are up to date or nothing was judged."""
    judged = {
        name: path for name, path in folders.items() if name.startswith(("audit", "verdicts", "second_verdicts", "evaluation"))
    }
    if not judged:
        return
    made_of = _hash([FORMAT, run, *((name, path.name) for name, path in judged.items())], *(p / MANIFEST for p in judged.values()))
    first = folder / VERDICTS_PAGE
    if first.is_file() and f"made of {made_of}" in first.open(encoding="utf-8").read(200):
        return
    found = list(_judged(folders))
    if found:
        from aligndistill.reporting.verdicts_page import write_verdicts_pages

        write_verdicts_pages(folder, run, found, made_of)


def _judged(folders: Mapping[str, Path]) -> "Iterator[JudgedPrompt]":
    """Every prompt with the verdicts on it: of each round's labelling, and of the evaluation."""
    rounds = sorted({*of_rounds(folders, "verdicts"), *of_rounds(folders, "audit")})
    for number in rounds:  # an audit that stopped the run is not finished, but the verdicts are
        known = {one: of_rounds(folders, one).get(number, folders.get(one)) for one in ("candidates", "verdicts", "rankings")}
        known["second_verdicts"] = of_rounds(folders, "second_verdicts").get(number)
        known["prompts"] = prompts_folder(folders)
        yield from judged_prompts(read_labelling({one: path for one, path in known.items() if path is not None}))
    if "evaluation" in folders:
        yield from _evaluated(folders["evaluation"])


def _evaluated(folder: Path) -> "Iterator[JudgedPrompt]":
    """The held-out prompts with the verdicts on their answers; equal answers are one, with all their authors."""
    from aligndistill.reporting.verdicts_page import JudgedPrompt

    verdicts: Mapping[str, Sequence[Verdict]] = group_by_prompt(read_verdicts(folder))
    answers = group_by_prompt(read_jsonl(folder / SCORED, ScoredAnswer))
    for prompt, some in answers.items():
        if prompt not in verdicts:
            continue
        authors: dict[str, list[str]] = {}
        for one in some:
            authors.setdefault(one.text, []).append(one.author)
        candidates = tuple(
            Candidate(id=answer_key(prompt, text), prompt_id=prompt, text=text, author=", ".join(dict.fromkeys(names)))
            for text, names in authors.items()
        )
        yield JudgedPrompt(plain_prompt(some[0].messages), candidates, tuple(verdicts[prompt]), held_out=True, id=prompt)


def _about(config: "RunConfig", report: "Report", folder: Path, folders: Mapping[str, Path]) -> "About":
    from aligndistill.reporting.about import About, ModelSize, StageTime

    spent = spent_by_stage(folder)
    manifests = {name: manifest for name, path in folders.items() if (manifest := read_manifest(path)) is not None}
    models = config.named_models
    return About(
        command=_command(folder / EVENTS),
        machine=str(manifests["report"].metrics.get(MACHINE, "unknown")),
        models=tuple(
            ModelSize(
                name=one.name,
                model=one.model + (f" on {one.server}" if one.server else ""),
                parameters=_size(one.name, getattr(models.get(one.name), "model", None), folders),
            )
            for one in report.origins.models
        ),
        stages=tuple(
            StageTime(
                stage=name,
                finished=datetime.fromtimestamp((folders[name] / MANIFEST).stat().st_mtime, UTC).isoformat(timespec="seconds"),
                seconds=round(manifest.wall_seconds, 3),
                requests=int(spent[name]["requests"]),
                tokens=int(spent[name]["tokens"]),
                usd=round(spent[name]["usd"], 6),
            )
            for name, manifest in manifests.items()
        ),
    )


def _size(name: str, model: str | None, folders: Mapping[str, Path]) -> int | None:
    made = parameters_of(folders[name]) if name in folders else None
    return made if made is not None or model is None else parameters_in(at_home(model))


def _command(events: Path) -> str:
    """The command that began the run, as its first event says."""
    if not events.is_file():
        return ""
    with events.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if event.get("event") == "begin":
                return str(event.get("note") or "")
    return ""


def _hash(values: Sequence[object], *files: Path) -> str:
    digest = hashlib.sha256(json.dumps(values).encode())
    for path in files:
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
