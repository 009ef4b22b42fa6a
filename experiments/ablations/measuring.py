"""What a pre-trained model is worth: reconstruction of unseen clips, probes on frozen features, fine-tuning."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.ablations.clips import Set, resized
from experiments.ablations.ways import Way
from experiments.learning.downstream import linear_probe
from experiments.learning.graphs import Adam
from experiments.learning.labelled import Split
from experiments.learning.settings import normalized
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.embeddings import native_grid
from videomae.model.pretraining import VideoMAEForPreTraining

NEIGHBOURS = 9
HEAD_SCALE = 0.001  # of the new classifier, as in the package's fine-tuning


@torch.no_grad()
def time_means(model: VideoMAEForPreTraining, data: Set, way: Way) -> Tensor:
    """Return means over space of each time slice of the last layer, side by side: `[n, t * D]`."""
    frames = native_grid(model.config).frames
    parts = []
    for clips in data.clips.split(64):
        seen = normalized(resized(clips[:, :: way.frame_step], way), torch.float32)
        tokens = model.videomae(seen).last_hidden_state  # [B, N, D]
        parts.append(tokens.unflatten(1, (frames, -1)).mean(2).flatten(1))
    return torch.cat(parts)


def probes(features: Tensor, data: Set, split: Split) -> dict[str, Any]:
    """Return test accuracies and predictions of a linear probe and of nearest neighbours."""
    linear = linear_probe(features, data.labels, split, split.train, data.num_classes)
    mean, std = features[split.train].mean(0), features[split.train].std(0) + 1e-6
    rows = F.normalize((features - mean) / std, dim=1)
    nearest = (rows[split.test] @ rows[split.train].T).topk(min(NEIGHBOURS, len(split.train)), dim=1).indices
    votes = F.one_hot(data.labels[split.train][nearest], data.num_classes).sum(1).argmax(1)
    found = {"linear": linear["predictions"], "neighbours": votes}
    truth = data.labels[split.test]
    return {
        name: {"accuracy": float((one == truth).double().mean()), "correct": (one == truth).int().tolist()}
        for name, one in found.items()
    }


def finetune(
    start: VideoMAEForPreTraining | VideoMAEForVideoClassification,
    data: Set,
    split: Split,
    way: Way,
    *,
    train: Tensor,
    lr: float,
    seconds: float,
    seed: int,
    pooling: str = "mean",
    batch_size: int = 16,
) -> dict[str, Any]:
    """Fine-tune on rows `train` for seconds of processor time; return validation and test accuracy.

    Args:
        start: A pre-trained or untrained model, or a classifier from its own random weights; it is not changed.
        data: Labelled clips.
        split: Validation rows choose the rate, test rows are reported.
        way: For the views.
        train: Row numbers to train on.
        lr: Peak rate of AdamW.
        seconds: Of processor time.
        seed: Of head, order and views.
        pooling: mean: of all tokens; first: the first token's state, a CLS token that these models do not have.
        batch_size: Clips a step.
    """
    torch.manual_seed(seed)
    names = {k: str(k) for k in range(data.num_classes)}
    config = start.config.replace(use_mean_pooling=pooling == "mean", id2label=names, label2id=None)
    model = VideoMAEForVideoClassification(config)
    own = dict(start.named_parameters())
    with torch.no_grad():
        model.classifier.weight.mul_(HEAD_SCALE)
        for name, one in model.named_parameters():
            if name in own and "classifier" not in name:
                one.copy_(own[name])
    model.train()
    parameters: list[Tensor] = [*model.parameters()]
    adam = Adam(parameters, betas=(0.9, 0.999), weight_decay=0.05, scales=[1.0] * len(parameters))
    generator = torch.Generator().manual_seed(seed)
    begin, steps = time.process_time(), 0
    while (spent := (time.process_time() - begin) / seconds) < 1.0:
        rows = train[torch.randint(len(train), (batch_size,), generator=generator)]
        logits = model(normalized(resized(data.clips[rows][:, :: way.frame_step], way), torch.float32)).logits
        model.zero_grad()
        F.cross_entropy(logits, data.labels[rows], label_smoothing=0.1).backward()
        adam.lr.fill_(lr * min(spent / 0.1 + 1e-3, 1.0) * min((1 - spent) / 0.5, 1.0))
        adam.step()
        steps += 1
    model.eval()

    @torch.no_grad()
    def correct(some: Tensor) -> Tensor:
        parts = [
            model(normalized(resized(data.clips[part][:, :: way.frame_step], way), torch.float32)).logits.argmax(1)
            for part in some.split(64)
        ]
        return (torch.cat(parts) == data.labels[some]).int()

    val, test = correct(split.val), correct(split.test)
    return {
        "val": float(val.double().mean()),
        "accuracy": float(test.double().mean()),
        "correct": test.tolist(),
        "lr": lr,
        "steps": steps,
    }
