"""DDP and FSDP2 on one device, through the training loops' own step: losses, time, peak memory, checkpoints.

One process is enough to prove that NCCL, the wrappers, the sharded optimizer and its checkpoints work on a GPU, and
to compare peak memory with the state's known part of it. Clips are random; no video is read. Each row is printed and
kept as soon as it is there.

    python -m benchmarks.distributed_cuda --out distributed.json
    python -m benchmarks.distributed_cuda --device cpu --sizes tiny,tiny --batches 4,4
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from videomae.data.batches import Batch
from videomae.data.samples import SampleKey
from videomae.engine.configs import OptimConfig, ParallelKind
from videomae.engine.distributed import Ranks, joined
from videomae.engine.interrupt import Interrupt
from videomae.engine.optim import RunOptimizer, build_optimizer, clip_and_norm, param_groups, update_if_finite
from videomae.engine.parallel import SpreadModel, own_part, spread
from videomae.engine.precision import autocast
from videomae.engine.schedule import set_learning_rate
from videomae.engine.seeding import derive_seed
from videomae.engine.sharded_checkpoint import ShardedCheckpoints, load_sharded
from videomae.masking import MaskConfig, draw_masks
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid
from videomae.model.layers import VideoMAELayer
from videomae.model.pretraining import IMAGENET_MEAN, IMAGENET_STD, VideoMAEForPreTraining
from videomae.processing.pixels import normalize
from videomae.train.gradients import Gradients

STEPS = 6
SEED = 0
OPTIM = OptimConfig(base_lr=1e-3, min_lr=1e-5, betas=(0.9, 0.95), clip_grad=1.0)
PRESETS = {"S": "small", "B": "base", "L": "large", "H": "huge", "g": "giant"}
TINY = {
    f"{prefix}{name}": value
    for prefix in ("", "decoder_")
    for name, value in {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 128,
    }.items()
}
STATE_BYTES = 16  # a parameter in float32, its gradient, and AdamW's two moments


class Run:
    """A model that is trained on random clips by the step of the training loops."""

    def __init__(
        self,
        size: str,
        batch_size: int,
        kind: ParallelKind,
        ranks: Ranks,
        device: torch.device,
        *,
        again: bool = False,
    ) -> None:
        """Build it.

        Args:
            size: A letter, or tiny.
            batch_size: Clips of a step.
            kind: ddp or fsdp.
            ranks: With a process group; without one the model is not wrapped.
            device: Where.
            again: Compute activations again in the backward pass.
        """
        config = VideoMAEConfig(**TINY, image_size=64) if size == "tiny" else VideoMAEConfig.preset(PRESETS[size])
        self.device, self.dtype = device, torch.bfloat16
        torch.manual_seed(derive_seed(SEED, "weights"))
        with device:
            model = VideoMAEForPreTraining(config.replace(use_mean_pooling=False)).train()
        model = model.to(device)  # the position tables are no parameters and drawn on the CPU
        if again:
            model.gradient_checkpointing_enable()
        self.num_parameters = sum(one.numel() for one in model.parameters())
        blocks = [one for one in model.modules() if isinstance(one, VideoMAELayer)]
        self.spread: SpreadModel = spread(model, ranks, kind, blocks=blocks, dtype=self.dtype)
        groups = param_groups(model.named_parameters(), weight_decay=0.05, no_decay=model.no_weight_decay())
        self.optimizer: RunOptimizer = build_optimizer(groups, OPTIM, dtype=self.dtype)
        set_learning_rate(self.optimizer, 1e-4)
        self.mean, self.std = (torch.tensor(one, device=device) for one in (IMAGENET_MEAN, IMAGENET_STD))
        generator = torch.Generator().manual_seed(1)
        mask = draw_masks(MaskConfig(), native_grid(config), batch=batch_size, generator=generator)
        side = config.image_height_width[0]
        shape = (batch_size, config.num_frames, 3, side, side)
        self.batch = Batch(
            clips=torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
            labels=torch.full((batch_size,), -1),
            indices=torch.arange(batch_size),
            readable=torch.ones(batch_size, dtype=torch.bool),
            visible=mask.visible,
            decoded=mask.decoded,
            bad=[],
            epoch=0,
        )
        self.gradients = Gradients(
            self.spread,
            ranks,
            batch_size=batch_size,
            micro_batch=None,
            seed=SEED,
            device=device,
            inputs_of=self._inputs_of,
            loss_of=self._loss_of,
            count=lambda batch: batch.num_readable,
        )
        self.parameters = list(model.parameters())

    def _inputs_of(self, clips: Batch, keys: Sequence[SampleKey], step: int) -> tuple[torch.Tensor, ...]:
        assert clips.visible is not None
        assert clips.decoded is not None
        return normalize(clips.clips, self.mean, self.std), clips.visible, clips.decoded

    def _loss_of(
        self, pixels: torch.Tensor, visible: torch.Tensor, decoded: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with autocast(self.device, self.dtype):
            output = self.spread.module(pixels, visible_indices=visible, decoded_indices=decoded)
        return output.loss, output.logits

    def step(self, number: int) -> torch.Tensor:
        """Do a step; returns its loss."""
        whole = self.gradients.agree(self.batch, Interrupt())
        loss = self.gradients.compute(self.batch, whole, number)
        norm = clip_and_norm(self.parameters, OPTIM.clip_grad)
        update_if_finite(self.optimizer, loss=loss, grad_norm=norm)
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def measure(self) -> dict[str, Any]:
        """Do some steps; returns their losses, the time of one, and the peak of memory."""
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        losses, seconds = [], []
        for number in range(1, STEPS + 1):
            begun = time.perf_counter()
            losses.append(float(self.step(number)))  # waits for the device
            seconds.append(time.perf_counter() - begun)
        row = {
            "parameters": self.num_parameters,
            "clips": len(self.batch.clips),
            "losses": losses,
            "ms_a_step": round(1e3 * sorted(seconds[2:])[len(seconds[2:]) // 2], 2),
            "predicted_state_gib": round(STATE_BYTES * self.num_parameters / 2**30, 3),
        }
        if cuda:
            row["peak_allocated_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
            row["peak_reserved_gib"] = round(torch.cuda.max_memory_reserved() / 2**30, 3)
        return row


def checkpointed(run: Run, ranks: Ranks) -> dict[str, Any]:
    """Save a sharded run while it takes two more steps, restore it, and take them again: with the same losses."""
    with tempfile.TemporaryDirectory() as name:
        checkpoints = ShardedCheckpoints(Path(name), ranks, keep=1)
        begun = time.perf_counter()
        checkpoints.save(run.spread.model, run.optimizer, step=STEPS, plain={})
        held = time.perf_counter() - begun
        first = [float(run.step(STEPS + 1)), float(run.step(STEPS + 2))]
        checkpoints.finish()
        written = time.perf_counter() - begun
        load_sharded(Path(name) / f"checkpoint-{STEPS:08d}", run.spread.model, run.optimizer)
        second = [float(run.step(STEPS + 1)), float(run.step(STEPS + 2))]
    difference = max(abs(a - b) / abs(a) for a, b in zip(first, second, strict=True))
    row = {"held_up_s": round(held, 2), "written_after_s": round(written, 2), "first": first, "again": second}
    return {**row, "relative_difference": difference}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all rows; returns 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distributed_cuda", description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sizes", default="B,g", help="for DDP, and for FSDP2")
    parser.add_argument("--batches", default="32,8", help="clips of their steps")
    parser.add_argument("--out", type=Path, default=Path("distributed.json"))
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    small, large = options.sizes.split(",")
    clips, few = (int(one) for one in options.batches.split(","))
    facts = {"torch": torch.__version__, "device": str(device)}
    if device.type == "cuda":
        facts |= {"name": torch.cuda.get_device_name(), "nccl": ".".join(map(str, torch.cuda.nccl.version()))}
    rows: list[dict[str, Any]] = []

    def measure(name: str, function: Callable[[], dict[str, Any]]) -> None:
        begun = time.perf_counter()
        try:
            row = {"name": name, **function()}
        except Exception as error:  # whatever it is: the rows after this one are still wanted
            row = {"name": name, "error": f"{type(error).__name__}: {error}"[:800]}
            traceback.print_exc(limit=-8, file=sys.stderr)
        row["took_s"] = round(time.perf_counter() - begun, 1)
        rows.append(row)
        print(json.dumps(row), flush=True)
        options.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()

    def sharded_with_checkpoint(ranks: Ranks) -> dict[str, Any]:
        run = Run(small, clips, "fsdp", ranks, device)
        return {**run.measure(), "checkpoint": checkpointed(run, ranks)}

    def largest(ranks: Ranks) -> dict[str, Any]:
        run = Run(large, few, "fsdp", ranks, device, again=True)
        row = run.measure()
        local = sum(own_part(one).numel() for one in run.parameters)
        return {**row, "parameters_here": local}

    alone = Ranks()
    with joined(device, needs_group=True) as ranks:
        measure(f"alone {small}", lambda: Run(small, clips, "ddp", alone, device).measure())
        measure(f"ddp {small}", lambda: Run(small, clips, "ddp", ranks, device).measure())
        measure(f"fsdp {small}", lambda: sharded_with_checkpoint(ranks))
        measure(f"fsdp {large}, activations computed again", lambda: largest(ranks))
        by_name = {row["name"]: row.get("losses") for row in rows}
        reference = by_name[f"alone {small}"]
        for name in (f"ddp {small}", f"fsdp {small}"):
            if reference and by_name[name]:
                pairs = zip(reference, by_name[name] or (), strict=True)
                worst = max(abs(a - b) / abs(a) for a, b in pairs)
                rows.append({"name": f"{name}: losses against alone", "relative_difference": worst})
                print(json.dumps(rows[-1]), flush=True)
    options.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return int(any("error" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
