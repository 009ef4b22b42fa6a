"""Uploading a model folder to the Hugging Face Hub, with its card.

Knows nothing of tensors.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from videomae.atomic import atomic_path
from videomae.errors import WeightsError
from videomae.model.config import VideoMAEConfig
from videomae.sharing.card import render_card, shareable
from videomae.weights.configs import read_declared
from videomae.weights.hub import split_hub_name
from videomae.weights.json_files import one_line, read_json
from videomae.weights.loading import LoadOptions, open_checkpoint
from videomae.weights.saving import load_record, save_record
from videomae.weights.sources import CONFIG_FILE, RECORD_FILE, find_model_folder

CARD_FILE = "README.md"
UPLOADED = ("config.json", "*preprocessor_config.json", RECORD_FILE, CARD_FILE, "model*.safetensors*")


def write_card(folder: Path, name: str) -> None:
    """Write the card of a model folder, `README.md`, from its configuration and its record.

    Args:
        folder: A saved model.
        name: `owner/name` on the Hub.

    Raises:
        WeightsError: If the folder cannot be read or written to.
    """
    config = VideoMAEConfig.from_dict(read_declared(folder / CONFIG_FILE).values)
    architectures = read_json(folder / CONFIG_FILE).get("architectures")
    architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else "VideoMAEModel"
    text = render_card(
        load_record(folder),
        config,
        architecture=architecture,
        name=name,
        num_parameters=sum(tensor.numel() for tensor in open_checkpoint(folder, LoadOptions()).shapes.values()),
    )
    try:
        with atomic_path(folder / CARD_FILE) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WeightsError(f"cannot write {folder / CARD_FILE}: {error}") from None


def publish_folder(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str | None = None,
) -> str:
    """Upload a model folder, or the model of a finished run, with a card and without the author's paths.

    Args:
        folder: Model folder or run folder; it is not changed.
        repo_id: `owner/name`; made if it is missing.
        private: Whether a new repository is private; None: as the owner's account says.
        token: Access token; None: the one that is logged in.
        commit_message: Of the upload.

    Returns:
        The address of the commit.

    Raises:
        WeightsError: If the folder holds no model, or the Hub refuses or cannot be reached.
    """
    check_name(repo_id)
    source = find_model_folder(folder)
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary) / "model"
        shutil.copytree(source, staged)
        record = load_record(staged)
        if record:
            save_record(staged, shareable(record))
        write_card(staged, repo_id)
        message = commit_message or "Upload a VideoMAE model"
        return upload(staged, repo_id, UPLOADED, private=private, token=token, commit_message=message)


def upload(
    folder: Path,
    repo_id: str,
    patterns: Sequence[str],
    *,
    private: bool | None,
    token: str | bool | None,
    commit_message: str,
) -> str:
    """Upload those files of a folder that match a pattern, into a repository that is made if it is missing.

    Returns:
        The address of the commit.

    Raises:
        WeightsError: If the name is none, or the Hub refuses or cannot be reached.
    """
    check_name(repo_id)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi(token=token, library_name="videomae")
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message=commit_message, allow_patterns=list(patterns)
        )
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise WeightsError(f"cannot upload to {repo_id} on the Hub: {one_line(error)}") from None
    return str(commit.commit_url)


def check_name(repo_id: str) -> None:
    """Refuse what is no name of a repository.

    Raises:
        WeightsError: If it is none.
    """
    name = split_hub_name(repo_id)
    if name is None or name[1]:
        raise WeightsError(f"{repo_id!r} is no name of a repository: give owner/name")
