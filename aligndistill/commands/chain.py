"""`aligndistill run --chain`: several runs, one after the other, of which later ones use students of earlier ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aligndistill.commands.run import run_and_print
from aligndistill.config.load import read_config
from aligndistill.config.run import RunConfig
from aligndistill.errors import ConfigError, DataError
from aligndistill.processes.progress import say
from aligndistill.processes.ranks import is_main_process
from aligndistill.stages.chains import (  # fmt: skip
    config_of,
    models_of_runs,
    no_such_student,
    require_one_tokenizer,
    student_names,
    with_folder,
)


@dataclass(frozen=True)
class Link:
    """One run of a chain."""

    file: Path
    config: RunConfig

    @property
    def folder(self) -> Path:
        """The folder of the run, where later ones look for its students."""
        return self.config.runtime.runs / self.config.name


def run_chain(files: Sequence[Path], overrides: Sequence[str]) -> None:
    """Run each file as a config of its own, in order. Finished runs are skipped.

    Args:
        overrides: `section.key=value` arguments, for every one of them.

    Raises:
        UserError: a config is wrong or names a student that no earlier run trains, which is known before anything runs; or a run
            failed.
    """
    links = [Link(file, read_config(file, overrides).config) for file in files]
    check_chain(links)
    for number, link in enumerate(links, 1):
        if is_main_process():
            say(f"run {number} of {len(links)}: {link.config.name} ({link.file})")
        run_and_print(link.config, None)


def check_chain(links: Sequence[Link]) -> None:
    """Check that every student of another run is one of an earlier run of the chain, or of a finished run.

    Raises:
        UserError: the message names the file and the key.
    """
    earlier: dict[Path, RunConfig] = {}
    for number, link in enumerate(links):
        folder = link.folder.absolute()
        if folder in earlier:
            raise ConfigError(f"{link.file}: name: an earlier run of the chain is called '{link.config.name}', too.")
        later = {one.folder.absolute(): one.file for one in links[number:]}
        try:
            _check_link(link.config, earlier, later)
        except (ConfigError, DataError) as error:
            raise type(error)(f"{link.file}: {error}") from None
        earlier[folder] = link.config


def _check_link(config: RunConfig, earlier: Mapping[Path, RunConfig], later: Mapping[Path, Path]) -> None:
    for key, model in models_of_runs(config):
        run, place = Path(str(model.run)).absolute(), ".".join(map(str, key))
        if run in later:
            raise ConfigError(f"{place}.run: '{model.run}' is the run of {later[run]}, which does not come before this one.")
        if run not in earlier:
            with_folder(model)
        elif str(model.student) not in (known := student_names(earlier[run])):
            raise ConfigError(f"{place}.student: {no_such_student(model, known)}")
    require_one_tokenizer(config, lambda run: earlier.get(run.absolute()) or config_of(run))
