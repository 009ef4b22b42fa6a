"""The monitor of one pre-training run: measures at a few steps, keeps the file, and says what it found.

It draws nothing from the training's random state and changes no weight: on the same videos, losses with it and
without are equal. Between its own steps it never waits for the device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videomae.data.loader import Batch
from videomae.data.manifest import VideoRow
from videomae.engine.runlog import MetricsLog
from videomae.engine.seeding import numpy_generator, torch_generator
from videomae.masking import MaskConfig, draw_masks
from videomae.model.embeddings import native_grid
from videomae.model.encoder import encode
from videomae.model.pretraining import IMAGENET_MEAN, IMAGENET_STD, VideoMAEForPreTraining
from videomae.monitor.alarms import raised
from videomae.monitor.baselines import baseline_losses
from videomae.monitor.configs import MonitorConfig
from videomae.monitor.data_checks import data_statistics
from videomae.monitor.held_out import WatchedVideos, centre_clips
from videomae.monitor.history import (
    MONITOR_FILE,
    Beginning,
    History,
    Measurement,
    baselines_line,
    read_history,
    standing,
)
from videomae.monitor.hooks import inputs_of, norm_spreads, outputs_of
from videomae.monitor.plan import plan_measurements
from videomae.monitor.statistics import (
    ATTENTIVE_FROM,
    attention_distances,
    attentive_probe_accuracy,
    content_fraction,
    effective_rank,
    explained_variance,
    gradient_norms,
    layer_groups,
    linear_probe_accuracy,
    neighbour_accuracy,
    relative_changes,
    usable_labels,
    weight_samples,
)
from videomae.patches import membership, patchify, token_places, unpatchify
from videomae.processing.pixels import normalize
from videomae.video.sampling import ClipConfig

CHUNK = 8  # clips at a time
NUM_PROBED = 2  # clips with which leaks, norms, attention and content are looked at
WINDOW = 200  # newest training steps whose mean loss is reported
MAX_FEATURES = 2048  # tokens whose effective rank is computed


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What the monitor needs to know of a run."""

    clip: ClipConfig
    """Which frames."""
    mask: MaskConfig
    """Which tokens are hidden."""
    seed: int
    """Of the run."""
    batch_size: int
    """Clips of a step."""
    rates: Sequence[float]
    """Learning rate of each step, as many as there are steps."""


class LearningMonitor:
    """Measures a run.

    Args:
        config: What it may cost.
        videos: From `hold_out`.
        model: What is trained.
        facts: Of the run.
        folder: The run's.
        autocast: Makes the context in which the model computes.
    """

    def __init__(
        self,
        config: MonitorConfig,
        videos: WatchedVideos,
        model: VideoMAEForPreTraining,
        facts: RunFacts,
        *,
        folder: Path,
        autocast: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._videos, self._model, self._facts, self._autocast = videos, model, facts, autocast
        self.plan = plan_measurements(
            config, total_steps=len(facts.rates), batch_size=facts.batch_size, num_videos=len(videos.measured)
        )
        self._due = set(self.plan.steps) if config.enabled else set()
        self._log = MetricsLog(folder / MONITOR_FILE)
        self._groups = layer_groups([name for name, _ in model.named_parameters()], model.config.num_hidden_layers)
        self._history: History | None = None
        self._before: dict[str, Tensor] = {}
        self._of_step: dict[str, Any] = {}
        self._clips = self._visible = self._hidden = self._places = torch.empty(0)
        self._rows: list[VideoRow] = []

    # ---- what the loop calls ---------------------------------------------------------------------------------

    def start(self, step: int, recent: Iterable[Mapping[str, Any]]) -> list[str]:
        """Read the clips and go on after a step; before the first step measure what is only measured once.

        Args:
            step: Steps done.
            recent: As for `measure`.

        Returns:
            Lines to print.
        """
        if not self._due:
            return []
        self._log.truncate_after(step if step else -1)
        self._read_clips()
        if not len(self._clips):
            self._due = set()
            return ["monitor: none of the videos to measure can be read, so nothing is measured"]
        if step and self._log.path.exists():
            self._history = read_history(MetricsLog.read(self._log.path))
        if self._history is not None:
            done = self._history.last.step
            return self.measure(step, recent) if step in self._due and done < step else []
        lines = self._begin()
        return [*lines, *self.measure(step, recent)]

    def is_due(self, step: int) -> bool:
        """Return whether to measure after a step."""
        return step in self._due

    def before_update(self, step: int, batch: Batch) -> None:
        """Look at the gradients of a step that is due, and remember weights; nothing at any other step.

        Args:
            step: The step whose gradients are in the model.
            batch: Of the step, on the CPU.
        """
        if step not in self._due:
            return
        self._before = weight_samples(self._model, self._groups)
        self._of_step = {"gradient_norms": _rounded(gradient_norms(self._model, self._groups))}
        if (
            batch.visible is not None
            and batch.decoded is not None
            and self._facts.mask.decoder_kind != "running_cell"
        ):
            decoded, visible = batch.decoded[batch.readable], batch.visible[batch.readable]  # not of black clips
            seen = (decoded[:, :, None] == visible[:, None, :]).any(dim=2)
            self._of_step["overlap"] = float(seen.float().mean())

    def measure(self, step: int, recent: Iterable[Mapping[str, Any]]) -> list[str]:
        """Measure after a step and write the line of the file.

        Args:
            step: Steps done.
            recent: Records of the newest training steps, as in `metrics.jsonl`.

        Returns:
            Lines to print: where the run stands, and alarms that are new.
        """
        assert self._history is not None
        known = self._history.measurements
        since = known[-1].step if known else 0
        window = [one for one in recent if since < one["step"] <= step][-WINDOW:]
        losses = [one["loss"] for one in window if "loss" in one and not one.get("skipped")]
        changes = relative_changes(self._before, weight_samples(self._model, self._groups)) if self._before else {}
        rates = self._facts.rates
        top = max(max(rates), 1e-30)
        one = Measurement(
            step=step,
            train_loss=sum(losses) / len(losses) if losses else None,
            num_skipped=sum(bool(record.get("skipped")) for record in window),
            step_ratios=_rounded(changes),
            rate_fraction=float(rates[step - 1] / top) if step else 1.0,
            rate_sum=float(sum(rates) / top),
            **self._of_step,
            **self._look(),
        )
        self._before, self._of_step = {}, {}
        history = dataclasses.replace(self._history, measurements=(*known, one))
        alarms = raised(history)
        one = dataclasses.replace(one, alarms=[alarm.record() for alarm in alarms])
        self._history = dataclasses.replace(history, measurements=(*known, one))
        self._log.append(dataclasses.asdict(one))
        old = {alarm["name"] for alarm in known[-1].alarms} if known else set()
        return [standing(self._history), *(alarm.line() for alarm in alarms if alarm.name not in old)]

    # ---- once ------------------------------------------------------------------------------------------------

    def _read_clips(self) -> None:
        facts, grid = self._facts, native_grid(self._model.config)
        size = self._model.config.image_height_width[0]
        clips, self._rows = centre_clips(
            self._videos.measured[: self.plan.num_clips],
            facts.clip,
            size=size,
            store=self._videos.train.index_store(),
        )
        device = self._model.device
        if len(clips):
            generator = torch_generator(facts.seed, "monitor", "mask")
            all_hidden = dataclasses.replace(facts.mask, decoder_kind="all")
            masks = draw_masks(all_hidden, grid, batch=len(clips), generator=generator)
            self._visible, self._hidden = masks.visible.to(device), masks.decoded.to(device)
        self._clips = clips  # [n, T, C, S, S] uint8, on the CPU
        self._places = token_places(grid, device)

    def _begin(self) -> list[str]:
        """Measure the data and the baselines and write them down, before the first measurement."""
        facts, videos = self._facts, self._videos
        sample = self._clips
        if videos.unseen:
            order = numpy_generator(facts.seed, "monitor", "sample").permutation(len(videos.train.rows))
            rows = tuple(videos.train.rows[int(number)] for number in order[: self.plan.num_compared])
            more, _ = centre_clips(rows, facts.clip, size=sample.shape[-1], store=videos.train.index_store())
            sample = torch.cat((sample, more))
        watched = (*videos.train.rows, *(videos.measured if videos.unseen else ()))
        paths = list(dict.fromkeys(row.path for row in watched))  # a video of several parts is one file
        beginning = Beginning(
            total_steps=len(facts.rates),
            warmup_steps=list(facts.rates).index(max(facts.rates)),
            batch_size=facts.batch_size,
            num_clips=len(self._clips),
            unseen=videos.unseen,
            num_train=len(videos.train.rows),
            normalized=self._model.norm_pix_loss,
            mask_kind=facts.mask.kind,
            baselines=_rounded(baseline_losses(self._model, self._batches())),
            data=data_statistics(sample, paths),
        )
        self._log.append(dataclasses.asdict(beginning))
        self._history = History(beginning, ())
        return [baselines_line(beginning)]

    def _batches(self, size: int = CHUNK) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield normalized clips `[B, T, C, S, S]`, visible and hidden token indices, on the device."""
        device = self._model.device
        mean, std = (torch.tensor(one, device=device) for one in (IMAGENET_MEAN, IMAGENET_STD))
        tensors = (self._clips.split(size), self._visible.split(size), self._hidden.split(size))
        for clips, visible, hidden in zip(*tensors, strict=True):
            yield normalize(clips.to(device), mean, std), visible, hidden

    # ---- every measurement -----------------------------------------------------------------------------------

    @torch.no_grad()
    def _look(self) -> dict[str, Any]:
        """Pass the measured clips through the model in eval mode; returns fields of `Measurement`."""
        model = self._model
        was_training = model.training
        model.eval()
        try:
            with self._autocast():
                found = self._losses_and_features()
            # In float32: a leak must not be mistaken for rounding.
            return {**found, **self._probed()}
        finally:
            model.train(was_training)

    def _losses_and_features(self) -> dict[str, Any]:
        model, grid = self._model, native_grid(self._model.config)
        errors: list[Tensor] = []
        variances: list[Tensor] = []
        features: list[Tensor] = []
        for clips, visible, hidden in self._batches():
            with outputs_of(model.videomae, features):
                logits = model(clips, visible_indices=visible, decoded_indices=hidden).logits.float()
            targets = model.targets(clips, hidden)
            errors.append((logits - targets).square().mean(dim=-1))  # [B, M]
            center = torch.zeros((), device=targets.device)
            if not model.norm_pix_loss:
                known = model.targets(clips, visible).unflatten(-1, (-1, model.num_channels)).mean(dim=(1, 2))
                center = known.repeat(1, targets.shape[-1] // model.num_channels)[:, None]
            variances.append((targets - center).square().mean(dim=-1))
        error, tokens = torch.cat(errors), torch.cat(features).float()
        V = self._visible.shape[1]
        tokens = tokens[:, -V:]  # without a CLS token
        found: dict[str, Any] = {
            "held_out_loss": float(error.mean()),
            "effective_rank": round(effective_rank(_spread(tokens.flatten(0, 1), MAX_FEATURES)), 4),
            "width": tokens.shape[-1],
            "explained": explained_variance(
                error, torch.cat(variances), self._hidden, (grid.frames, grid.height, grid.width)
            ),
        }
        kept = usable_labels([row.label for row in self._rows])
        if kept:
            labels = [int(label) for place in kept if (label := self._rows[place].label) is not None]
            labels = [sorted(set(labels)).index(label) for label in labels]
            pooled = tokens[kept].mean(dim=1)  # [n, D]
            found |= {
                "neighbour_accuracy": neighbour_accuracy(pooled, labels),
                "probe_accuracy": linear_probe_accuracy(pooled, labels),
                "majority": max(labels.count(label) for label in labels) / len(labels),
            }
            if len(kept) >= ATTENTIVE_FROM:
                slices = self._places[self._visible[kept], 0].long()  # [n, V]
                groups = [self._rows[place].group or str(place) for place in kept]
                found["attentive_accuracy"] = attentive_probe_accuracy(tokens[kept], slices, labels, groups)
        return found

    def _probed(self) -> dict[str, Any]:
        """Look at inputs, norms, attention and leaks with a few clips."""
        model = self._model
        clips, visible, hidden = next(self._batches(NUM_PROBED))
        options = {"visible_indices": visible, "decoded_indices": hidden}
        inputs: list[Tensor] = []
        norms: dict[str, float] = {}
        noise = torch_generator(self._facts.seed, "monitor", "noise")
        # Both in one memory layout, so that both are computed by the same kernels.
        clips, noisy = replaced(clips, hidden[:, :0], model), replaced(clips, hidden, model, generator=noise)
        with inputs_of(model.videomae.embeddings, inputs), norm_spreads(model, norms):
            logits = model(clips, **options).logits.float()
        change = (model(noisy, **options).logits.float() - logits).abs().max()
        # With the same tokens visible in all: a blind encoder would tell clips apart by their masks.
        same = visible[:1].expand(len(clips), -1)
        try:
            encoded = encode(model.videomae, clips, visible_indices=same, output_attentions=True)
        except TypeError:  # a custom encoder that has no such option
            encoded = encode(model.videomae, clips, visible_indices=same)
        tokens, attentions = encoded.last_hidden_state[:, -same.shape[1] :], encoded.attentions
        name = min(norms, key=lambda one: norms[one]) if norms else ""
        seen = inputs[0].float() if inputs else clips
        return {
            "content": round(content_fraction(tokens.float()), 6),
            "leak": float(change / logits.std().clamp_min(1e-12)),
            "input_mean": round(float(seen.mean()), 5),
            "input_std": float(seen.std()),
            "norm_std": norms.get(name, 1.0),
            "norm_name": name,
            "attention_distance": [
                round(one, 4) for one in attention_distances(attentions or (), self._places[same])
            ],
        }


def replaced(
    clips: Tensor, hidden: Tensor, model: VideoMAEForPreTraining, *, generator: torch.Generator | None = None
) -> Tensor:
    """Return clips `[B, T, C, H, W]` with normal noise in the place of the hidden tubelets `[B, M]`."""
    grid = native_grid(model.config)
    patches = patchify(clips, model.tubelet)
    noise = torch.randn(patches.shape, generator=generator).to(clips)
    is_hidden = membership(hidden, grid.num_tokens)[..., None]
    return unpatchify(torch.where(is_hidden, noise, patches), grid, model.tubelet)


def _spread(rows: Tensor, count: int) -> Tensor:
    """Take at most so many rows, at even distances."""
    return rows[:: -(-len(rows) // count)]


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Seven digits: what float32 holds, and a shorter line."""
    return {name: float(f"{value:.7g}") for name, value in values.items()}
