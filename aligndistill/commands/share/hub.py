"""A folder to a repository on the Hugging Face Hub, or on whatever serves its interface (`HF_ENDPOINT`)."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from aligndistill.errors import ConfigError, DataError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

NAME = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}")
RepoType = Literal["model", "dataset"]


@dataclass(frozen=True)
class Repository:
    """A repository as it is before a push.

    Attributes:
        private: None if it does not exist yet.
        readme: its README.md; None if it has none.
    """

    name: str
    kind: RepoType
    private: bool | None
    readme: str | None


def require_name(repo: str) -> None:
    """Refuse what cannot be the name of a repository.

    Raises:
        ConfigError: it is no `OWNER/NAME`.
    """
    if not NAME.fullmatch(repo) or "--" in repo or ".." in repo:
        raise ConfigError("REPO: give the repository as OWNER/NAME, such as my-name/my-model.")


def repository(repo: str, kind: RepoType, cache: Path) -> Repository:
    """What the Hub says of a repository.

    Args:
        cache: a folder that nothing else reads: a cached README.md may be an old one.

    Raises:
        DataError: the Hub cannot be reached, or refuses.
    """
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    with _explained(repo):
        api = _api()
        try:
            private = bool(api.repo_info(repo, repo_type=kind).private)
        except RepositoryNotFoundError:
            return Repository(repo, kind, None, None)
        try:
            file = api.hf_hub_download(repo, "README.md", repo_type=kind, cache_dir=cache)
        except EntryNotFoundError:
            return Repository(repo, kind, private, None)
        return Repository(repo, kind, private, Path(file).read_text(encoding="utf-8"))


def upload(folder: Path, repo: str, kind: RepoType, private: bool, message: str) -> str:
    """Create the repository if there is none, and commit a folder's files; returns the address.

    Raises:
        DataError: the Hub cannot be reached, or refuses.
    """
    with _explained(repo):
        api = _api()
        address = api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=repo, repo_type=kind, commit_message=message)
        return str(address)


def _api() -> "HfApi":
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="aligndistill")


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except LocalTokenNotFoundError:
        raise DataError(f"{repo}: no token for the Hub. Set HF_TOKEN, or log in with `hf auth login`.") from None
    except OfflineModeIsEnabled:
        raise DataError(f"{repo}: HF_HUB_OFFLINE is set, so nothing can be pushed. Unset it.") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        advice = {401: "Check the token in HF_TOKEN.", 403: "The token may not write there: give one with the role 'write'."}
        reason = (error.server_message or str(error).splitlines()[0]).rstrip(".")
        raise DataError(f"{repo}: the Hub answered {status}: {reason}. {advice.get(status, 'Try again later.')}") from None
    except ValueError as error:
        raise DataError(f"{repo}: {error}") from None
    except Exception as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
        if not isinstance(cause, OSError) and not type(cause).__module__.startswith(("http", "requests")):
            raise
        reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise DataError(f"{repo}: the Hub cannot be reached ({reason}). Run the same command again.") from None
