"""Video classification: encoder, pooling, linear head.

`B` batch, `N` tokens, `D` width, `K` classes.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videomae.engine.sample_draws import dropout
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.config import VideoMAEConfig
from videomae.model.encoder import VideoMAEModel, encode
from videomae.model.layers import normalized
from videomae.model.outputs import ImageClassifierOutput

PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


class VideoMAEForVideoClassification(VideoMAEPreTrainedModel):
    """Encoder and classifier.

    With `use_mean_pooling` (the default, and the published classifiers) the tokens are averaged, normalized by
    `fc_norm` and classified. Without it, and without a CLS token, token 0 is classified, as upstream does; that
    token is the top-left patch of the first frames, so this warns.

    Args:
        config: Sizes and switches; `num_labels` sets the head. They are read once: a built model does not change when
            its configuration is written to, but for `problem_type` and what outputs hold.
    """

    encoder_class: ClassVar[type[VideoMAEModel]] = VideoMAEModel

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        if not config.use_mean_pooling and not config.use_cls_token:
            warnings.warn(
                "use_mean_pooling is False and the model has no CLS token: the classifier sees token 0 alone, the "
                "top-left patch of the first frames; set use_mean_pooling=True to classify from the whole clip",
                UserWarning,
                stacklevel=2,
            )
        self.num_labels = config.num_labels
        self.uses_first_token = config.use_cls_token or not config.use_mean_pooling
        self.dropout = config.classifier_dropout
        self.videomae = self.encoder_class(config)
        self.fc_norm = nn.LayerNorm(config.hidden_size, eps=config.head_norm_eps) if config.use_mean_pooling else None
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the module that embeds tubelets."""
        return self.videomae.get_input_embeddings()

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ImageClassifierOutput | tuple[Any, ...]:
        """Classify videos.

        Args:
            pixel_values: `[B, T, C, H, W]` normalized pixels, any T, H and W that tubelets divide.
            labels: `[B]` class ids, or `[B, K]` 0/1 floats for several labels, or floats for regression.
            output_attentions: Return attention probabilities; None: as configured.
            output_hidden_states: Return hidden states; None: as configured.
            return_dict: False returns a tuple; None: as configured.

        Returns:
            Loss, 0-d, only with labels; logits `[B, K]`.

        Raises:
            ValueError: If the video does not fit the tubelets, or the problem type is unknown.
        """
        encoded = encode(self.videomae, pixel_values, **self.wanted(output_attentions, output_hidden_states))
        if not encoded:
            return self.format_output(ImageClassifierOutput(), return_dict)
        logits = self.classify(self.features(encoded.last_hidden_state))
        output = ImageClassifierOutput(
            loss=None if labels is None else self.loss(logits, labels),
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.format_output(output, return_dict)

    def features(self, tokens: Tensor) -> Tensor:
        """Pool encoder states `[B, N, D]` to what the classifier sees, `[B, D]`."""
        pooled = tokens[:, 0] if self.uses_first_token else tokens.mean(dim=1)
        return pooled if self.fc_norm is None else normalized(self.fc_norm, pooled)

    def classify(self, features: Tensor) -> Tensor:
        """Return logits `[B, K]` for features `[B, D]`."""
        logits: Tensor = self.classifier(dropout(features, self.dropout, self.training))
        return logits

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss that the problem type asks for; without one it is judged from the labels, as upstream."""
        match problem_type(self.config.problem_type, self.num_labels, labels):
            case "regression":
                # What mse_loss does by itself, but torch 2.11 then fails in the backward pass of a bfloat16 model.
                logits = logits.to(torch.promote_types(logits.dtype, labels.dtype))
                if self.num_labels == 1:
                    return F.mse_loss(logits.squeeze(), labels.squeeze())
                return F.mse_loss(logits, labels)
            case "multi_label_classification":
                return F.binary_cross_entropy_with_logits(logits, labels)
            case _:
                return F.cross_entropy(logits.view(-1, self.num_labels), labels.view(-1))


def problem_type(configured: str | None, num_labels: int, labels: Tensor) -> str:
    """Return one of `PROBLEM_TYPES`.

    Raises:
        ValueError: If the configured one is unknown.
    """
    if configured is None:
        if num_labels == 1:
            return "regression"
        return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
    if configured not in PROBLEM_TYPES:
        raise ValueError(f"config.problem_type is {configured!r}: choose one of {', '.join(PROBLEM_TYPES)}")
    return configured
