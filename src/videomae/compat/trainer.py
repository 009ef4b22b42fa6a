"""What transformers' Trainer does not save of models that are not its own: the configuration.

Of a model in one process it is saved without this: `state_dict` sees that the Trainer asks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from videomae.errors import ConfigError


def configuration_saver() -> Any:
    """Return a callback for `Trainer(callbacks=[...])` that writes the configuration beside the Trainer's weights.

    It writes `config.json` into the output folder when training starts, where `trainer.save_model()` puts the
    weights, and into each checkpoint folder: class names and sizes are then read with them. Only sharded training
    (FSDP, DeepSpeed) needs it, where the weights are gathered before the Trainer writes them.

    Raises:
        ConfigError: If transformers is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise ConfigError("configuration_saver needs transformers: pip install transformers") from None

    class ConfigurationSaver(transformers.TrainerCallback):  # type: ignore[misc]
        """Writes the model's `config.json`."""

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            """Write it into the output folder."""
            if state.is_world_process_zero:
                model.save_configuration(args.output_dir)

        def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            """Write it into the checkpoint that was saved last."""
            if state.is_world_process_zero:
                model.save_configuration(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    return ConfigurationSaver()
