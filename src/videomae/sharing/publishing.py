"""Uploading a model folder to the Hugging Face Hub, with its card."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from videomae.sharing.card import render_card, shareable
from videomae.sharing.record import ModelRecord, load_record, save_record
from videomae.weights.configs import ModelConfig, read_declared
from videomae.weights.hub import create_repository, upload_folder
from videomae.weights.json_files import write_text_file
from videomae.weights.loading import open_checkpoint
from videomae.weights.sources import CONFIG_FILE, RECORD_FILE, find_model_folder

CARD_FILE = "README.md"
UPLOADED = ("config.json", "*preprocessor_config.json", RECORD_FILE, CARD_FILE, "model*.safetensors*")


def write_card(folder: Path, name: str, *, config_class: type[ModelConfig]) -> None:
    """Write the card of a model folder, `README.md`, from its configuration, its tensors and its record.

    Args:
        folder: A saved model.
        name: `owner/name` on the Hub.
        config_class: Of the model.

    Raises:
        WeightsError: If the folder cannot be read or written to.
    """
    checkpoint = open_checkpoint(folder, config_class)
    text = render_card(
        load_record(folder),
        config_class.from_dict(read_declared(folder / CONFIG_FILE, config_class).values),
        kind=checkpoint.layout.kind,
        name=name,
        num_parameters=sum(tensor.numel() for tensor in checkpoint.shapes.values()),
    )
    write_text_file(folder / CARD_FILE, text)


def publish_folder(
    folder: Path,
    repo_id: str,
    *,
    config_class: type[ModelConfig],
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str | None = None,
) -> str:
    """Upload a model folder, or the model of a finished run, with a card and without the author's paths.

    Args:
        folder: Model folder or run folder; it is not changed.
        repo_id: `owner/name`, or a name alone for the account that is logged in; made if it is missing.
        config_class: Of the model.
        private: Whether a new repository is private; None: as the owner's account says.
        token: Access token; None: the one that is logged in.
        commit_message: Of the upload.

    Returns:
        The address of the commit.

    Raises:
        WeightsError: If the folder holds no model, or the Hub refuses or cannot be reached.
    """
    source = find_model_folder(folder)
    repo_id = create_repository(repo_id, private=private, token=token)
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary) / "model"
        shutil.copytree(source, staged)
        record = load_record(staged)
        if record != ModelRecord():
            save_record(staged, shareable(record))
        write_card(staged, repo_id, config_class=config_class)
        message = commit_message or "Upload a VideoMAE model"
        return upload_folder(staged, repo_id, UPLOADED, token=token, commit_message=message)
