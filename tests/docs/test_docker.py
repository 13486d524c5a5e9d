"""docker/Dockerfile, as far as it can be checked without an engine: its instructions, stages, and the files that it copies."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker/Dockerfile"
INSTRUCTIONS = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "ENTRYPOINT", "CMD"}


def instructions() -> list[tuple[str, str]]:
    """Each instruction with its arguments, continued lines joined."""
    text = "".join(line for line in DOCKERFILE.read_text().splitlines(keepends=True) if not line.startswith("#"))
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def stages() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for word, rest in instructions():
        if word == "FROM":
            name = rest.split(" AS ")[1]
            found[name] = []
        if found:
            found[name].append((word, rest))
    return found


def test_it_has_a_stage_for_cpus_and_one_for_cuda() -> None:
    assert {word for word, _ in instructions()} <= INSTRUCTIONS
    assert list(stages()) == ["wheel", "cpu", "cuda"]
    assert "AS cuda" in next(rest for word, rest in stages()["cuda"] if word == "FROM")


def test_images_and_libraries_are_pinned() -> None:
    defaults = dict(rest.split("=") for word, rest in instructions() if word == "ARG")
    for word, rest in instructions():
        if word == "FROM":
            image = re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], rest.partition(" ")[0])
            assert re.search(r":\d+\.\d+", image), image
        for command in re.findall(r"pip install.*?(?=&&|$)", rest):
            assert "--constraint /tmp/constraints.txt" in command
            assert "--no-cache-dir" in command


def test_what_runs_is_no_root_and_reads_the_folder_that_is_mounted() -> None:
    for name in ("cpu", "cuda"):
        assert dict(stages()[name])["USER"].isdigit(), "a name means nothing to the host"
        words = [word for word, _ in stages()[name]]
        assert words.index("USER") < words.index("ENTRYPOINT")
        assert "RUN" not in words[words.index("USER") :]
        assert ("ENTRYPOINT", '["aligndistill"]') in stages()[name]


def test_what_it_copies_is_there_and_what_the_wheel_contains_is_not_left_out() -> None:
    for word, rest in instructions():
        if word == "COPY":
            assert (ROOT / rest.split()[0]).exists()
    left_out = (ROOT / ".dockerignore").read_text().split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [*project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"], "README.md", "LICENSE", "aligndistill"]
    assert not [path for path in needed if path.split("/")[0] in left_out]


def test_its_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {extra for _, rest in instructions() for extra in re.findall(r"\[(\w+)\]", rest) if '["' not in rest}
    assert named == {"quantised"} <= set(project["optional-dependencies"])


def test_its_python_is_one_that_the_package_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = next(rest.partition("=")[2] for word, rest in instructions() if word == "ARG" and rest.startswith("PYTHON"))
    assert f"Programming Language :: Python :: {version}" in project["classifiers"]
