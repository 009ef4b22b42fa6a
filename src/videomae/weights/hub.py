"""The Hugging Face Hub: files of a repository by name, and uploads, through huggingface_hub and its cache."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from videomae.errors import WeightsError
from videomae.weights.json_files import one_line

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class HubUnreachableError(WeightsError):
    """The Hub does not answer, and the cache does not hold the file."""


@dataclass(frozen=True)
class HubOptions:
    """How a repository is read; the names are huggingface_hub's."""

    revision: str | None = None
    """Branch, tag or commit; None: main."""
    token: str | bool | None = None
    """Access token; True or None: the one that is logged in."""
    cache_dir: str | os.PathLike[str] | None = None
    """Where files are kept; None: the usual cache."""
    local_files_only: bool = False
    """Ask nobody; HF_HUB_OFFLINE=1 does the same."""
    force_download: bool = False
    """Download anew what the cache holds."""
    subfolder: str = ""
    """Folder in the repository."""


def split_hub_name(source: str) -> tuple[str, str] | None:
    """Read a text as `owner/name`, or as `owner/name/path/of/a/file.pth`.

    Returns:
        The repository and the path of the file (empty: none), or None where the text cannot be such a name.
    """
    parts = source.split("/")
    if len(parts) < 2 or not REPOSITORY.fullmatch("/".join(parts[:2])) or "--" in source or ".." in source:
        return None
    path = "/".join(parts[2:])
    if path and (PurePosixPath(path).suffix not in (".safetensors", ".bin", ".pth", ".pt") or "" in parts):
        return None
    return "/".join(parts[:2]), path


def hub_file(repository: str, name: str, options: HubOptions) -> Path | None:
    """Return a file of a repository, downloaded or from the cache.

    Args:
        repository: `owner/name`.
        name: Path in the repository, below `options.subfolder`.
        options: Revision, token, cache.

    Returns:
        Its path in the cache, or None where the repository has no such file; offline, where the cache does not.

    Raises:
        HubUnreachableError: If there is no connection and the cache does not hold the file.
        WeightsError: If the repository, the revision or the right to read it is missing, or the download fails.
    """
    # The import takes a third of a second, which loading from a folder need not wait for.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"{repository} on the Hub" + (f", revision {options.revision}" if options.revision else "")
    try:
        return Path(
            hf_hub_download(
                repository,
                name,
                subfolder=options.subfolder or None,
                revision=options.revision,
                token=options.token,
                cache_dir=None if options.cache_dir is None else Path(options.cache_dir),
                local_files_only=options.local_files_only,
                force_download=options.force_download,
                library_name="videomae",
            )
        )
    except GatedRepoError:
        raise WeightsError(
            f"{where} is gated: accept its terms on its page, then run hf auth login or give token="
        ) from None
    except RepositoryNotFoundError:
        raise WeightsError(f"there is no {where}, or it is private: check the name, or give token=") from None
    except RevisionNotFoundError:
        raise WeightsError(f"{where} does not exist: check revision=") from None
    except LocalEntryNotFoundError:  # a kind of the next error, so it comes first
        if is_offline(options):
            return None
        raise HubUnreachableError(
            f"cannot reach the Hub for {name} of {where}, and the cache does not hold it: check the connection"
        ) from None
    except EntryNotFoundError:
        return None
    except HFValidationError as error:
        raise WeightsError(f"{repository!r} is no name of a repository: {_first_line(error)}") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise WeightsError(f"cannot read {name} of {where}: {_first_line(error)}") from None


def pinned(options: HubOptions, file: Path) -> HubOptions:
    """Return options that name the commit which a downloaded file is of.

    All files of a model must be of one commit, although somebody may push between two downloads.
    """
    parts = file.parts
    if "snapshots" not in parts[:-1]:
        return options
    return replace(options, revision=parts[parts.index("snapshots") + 1])


def is_offline(options: HubOptions) -> bool:
    """Tell whether only the cache may be read."""
    from huggingface_hub import constants

    return options.local_files_only or bool(constants.HF_HUB_OFFLINE)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def create_repository(repo_id: str, *, private: bool | None, token: str | bool | None) -> str:
    """Make a model repository on the Hub unless it is there.

    Args:
        repo_id: `owner/name`, or a name alone for one of the account that is logged in.
        private: Whether a new repository is private; None: as the owner's account says.
        token: Access token; None: the one that is logged in.

    Returns:
        Its full name, `owner/name`.

    Raises:
        WeightsError: If the name is none, or the Hub refuses or cannot be reached.
    """
    check_name(repo_id)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        api = HfApi(token=token, library_name="videomae")
        return str(api.create_repo(repo_id, private=private, exist_ok=True).repo_id)
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise WeightsError(f"cannot upload to {repo_id} on the Hub: {one_line(error)}") from None


def upload_folder(
    folder: Path, repo_id: str, patterns: Sequence[str], *, token: str | bool | None, commit_message: str
) -> str:
    """Upload those files of a folder that match a pattern into a repository that is there.

    Returns:
        The address of the commit.

    Raises:
        WeightsError: If the Hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        commit = HfApi(token=token, library_name="videomae").upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message=commit_message, allow_patterns=list(patterns)
        )
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise WeightsError(f"cannot upload to {repo_id} on the Hub: {one_line(error)}") from None
    return str(commit.commit_url)


def check_name(repo_id: str) -> None:
    """Refuse what names no repository.

    Raises:
        WeightsError: If it is neither `owner/name` nor a name alone.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise WeightsError(
            f"{repo_id!r} is no name of a repository: give owner/name, or a name alone for your own account"
        ) from None
