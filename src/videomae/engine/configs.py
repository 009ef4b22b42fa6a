"""The settings of any training, without what carries them out: `--help` reads them and must not wait for torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from videomae.errors import ConfigError

Precision = Literal["auto", "bf16", "fp32"]
InferencePrecision = Literal["auto", "bf16", "fp32", "int8"]
Backend = Literal["torch", "openvino"]  # what computes a model for inference
JobEngine = Literal["local", "ray"]  # processes of this machine, or a Ray cluster
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
OptimizerName = Literal["adamw", "muon"]
ScheduleShape = Literal["cosine", "constant"]
ParallelKind = Literal["ddp", "fsdp"]
TrackerName = Literal["auto", "tensorboard", "wandb", "trackio", "none"]


@dataclass(frozen=True)
class LoopConfig:
    """How a loop runs, whatever it trains."""

    batch_size: int = 8
    """Clips per optimizer step, summed over all processes."""
    micro_batch: int | None = None
    """Maximum clips per forward pass of a process, with gradient accumulation; null: all of its clips."""
    seed: int = 0
    """Random seed for sample order, frames, crops, masks and initial weights."""
    device: DeviceName = "auto"
    """auto: CUDA if available, else MPS, else CPU."""
    precision: Precision = "auto"
    """auto: bf16 where the device supports it, else fp32; weights stay in float32."""
    activation_checkpointing: bool = False
    """Run each block again in the backward pass instead of storing its activations: less memory, about a third more
    time."""
    compile: bool | Literal["auto"] = "auto"
    """Compile blocks and loss with torch.compile; auto: on CUDA only, where it pays off within minutes."""
    cuda_graph: bool | Literal["auto"] = False
    """Launch each step on a single GPU as one CUDA graph; auto: only if the GPU waits for the host."""
    workers: int = 1
    """Number of processes that read videos; 0: read in the training process."""
    checkpoint_steps: int = 200
    """Optimizer steps between checkpoints."""
    keep_checkpoints: int = 2
    """Number of most recent checkpoints to keep."""
    log_steps: int = 10
    """Steps between reads of the losses from the device; every step is logged in any case."""
    tracker: TrackerName = "auto"
    """Experiment tracker to use in addition to metrics.jsonl; auto: tensorboard if it is installed, else none."""
    max_bad_fraction: float = 0.05
    """Maximum fraction of unreadable videos before the run stops."""
    max_skipped_steps: int = 10
    """Maximum consecutive steps skipped because loss or gradient is not finite; one more stops the run."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("batch_size", "checkpoint_steps", "keep_checkpoints", "log_steps"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"loop.{name} is {value}; it must be at least 1")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ConfigError(f"loop.micro_batch is {self.micro_batch}; use 1 or more, or null for all clips at once")
        for name in ("compile", "cuda_graph"):
            value = getattr(self, name)
            if value not in (True, False, "auto"):
                raise ConfigError(f"loop.{name} is {value!r}; it is auto, true or false")
        if self.workers < 0:
            raise ConfigError(f"loop.workers is {self.workers}; use 0 to read in the training process, or more")
        if not 0.0 <= self.max_bad_fraction <= 1.0:
            raise ConfigError(f"loop.max_bad_fraction is {self.max_bad_fraction:g}; it is a fraction in [0, 1]")
        if self.max_skipped_steps < 0:
            raise ConfigError(f"loop.max_skipped_steps is {self.max_skipped_steps}; use 0 to allow none, or more")


@dataclass(frozen=True)
class ParallelConfig:
    """How the processes of a run, which torchrun starts, share the work."""

    kind: ParallelKind = "ddp"
    """ddp: every process has the whole model; fsdp: tensors are sharded, for models that do not fit on one device."""

    def __post_init__(self) -> None:
        """Check the name."""
        if self.kind not in get_args(ParallelKind):
            raise ConfigError(f"parallel.kind is {self.kind!r}; it is 'ddp' or 'fsdp'")


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer's settings; learning rates are for a batch of 256 clips, see `scaled_lr`."""

    base_lr: float
    """Peak learning rate for a batch size of 256 clips, > 0."""
    min_lr: float
    """Final learning rate for a batch size of 256 clips, 0 to base_lr; also scaled with the batch size."""
    betas: tuple[float, float]
    """Decay rates of the running averages of the gradient and its square, each in [0, 1)."""
    eps: float = 1e-8
    """Added to the square root of the second moment for numerical stability, > 0."""
    weight_decay: float = 0.05
    """Decoupled weight decay, >= 0; never applied to biases and other 1-D tensors."""
    clip_grad: float | None = None
    """Maximum global gradient norm, > 0; null: no clipping."""
    layer_decay: float = 1.0
    """Layer-wise learning rate decay: factor from each layer to the one below it, in (0, 1]; 1: none."""
    optimizer: OptimizerName = "adamw"
    """muon: Muon for the weight matrices of the transformer blocks, AdamW for everything else."""
    muon_lr: float = 0.02
    """Peak learning rate of Muon for a batch size of 256 clips, > 0; same schedule as AdamW's."""
    ema_decay: float | None = None
    """Decay of a moving average of the weights, in (0, 1), such as 0.9999; the model folder then holds the
    average; null: none."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        low, high = self.betas
        checks = (
            ("base_lr", self.base_lr, self.base_lr > 0, "a learning rate is above 0"),
            ("min_lr", self.min_lr, 0 <= self.min_lr <= self.base_lr, f"use 0 to base_lr, {self.base_lr:g}"),
            ("betas[0]", low, 0 <= low < 1, "use 0 or more and less than 1, such as 0.9"),
            ("betas[1]", high, 0 <= high < 1, "use 0 or more and less than 1, such as 0.999"),
            ("eps", self.eps, self.eps > 0, "use a small number above 0, such as 1e-8"),
            ("weight_decay", self.weight_decay, self.weight_decay >= 0, "use 0 for none, or more"),
            ("layer_decay", self.layer_decay, 0 < self.layer_decay <= 1, "use above 0 to 1; 1 is none"),
            ("muon_lr", self.muon_lr, self.muon_lr > 0, "a learning rate is above 0"),
        )
        for name, value, holds, rule in checks:
            if not (holds and math.isfinite(value)):
                raise ConfigError(f"optim.{name} is {value:g}; {rule}")
        if self.clip_grad is not None and not 0 < self.clip_grad < math.inf:
            raise ConfigError(f"optim.clip_grad is {self.clip_grad:g}; use a norm above 0, or null for no clipping")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError(
                f"optim.ema_decay is {self.ema_decay:g}; use above 0 and below 1, or null for no average"
            )
        if self.optimizer not in get_args(OptimizerName):
            raise ConfigError(f"optim.optimizer is {self.optimizer!r}; it is 'adamw' or 'muon'")


@dataclass(frozen=True)
class ScheduleConfig:
    """How long to train and to warm up."""

    epochs: float | None = None
    """Length of the run in epochs, > 0; ignored if steps is given."""
    steps: int | None = None
    """Length of the run in optimizer steps, > 0."""
    warmup_fraction: float = 0.05
    """Fraction of the run used for warm-up, in [0, 1]; ignored if warmup_epochs or warmup_steps is given."""
    warmup_epochs: float | None = None
    """Length of the warm-up in epochs, >= 0."""
    warmup_steps: int | None = None
    """Length of the warm-up in optimizer steps, >= 0."""
    shape: ScheduleShape = "cosine"
    """After the warm-up: cosine decays over the rest of the run; constant stays at the peak and decays linearly at
    the end."""
    cooldown_fraction: float = 0.3
    """Fraction of the run over which a constant schedule decays at the end, in [0, 1]."""

    def __post_init__(self) -> None:
        """Check that there is one length of each kind, in range."""
        if self.epochs is None and self.steps is None:
            raise ConfigError("schedule has neither epochs nor steps; the run needs a length: set one of them")
        if self.warmup_epochs is not None and self.warmup_steps is not None:
            raise ConfigError(
                f"schedule.warmup_epochs is {self.warmup_epochs:g} and schedule.warmup_steps is {self.warmup_steps}; "
                "only one of them may be given: set the other to null"
            )
        for name in ("epochs", "steps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"schedule.{name} is {value:g}; a run has a length: use a number above 0")
        for name in ("warmup_epochs", "warmup_steps"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigError(f"schedule.{name} is {value:g}; use 0 for no warm-up, or a number above 0")
        if not 0.0 <= self.warmup_fraction <= 1.0:
            raise ConfigError(f"schedule.warmup_fraction is {self.warmup_fraction:g}; it is a fraction in [0, 1]")
        if self.shape not in get_args(ScheduleShape):
            raise ConfigError(f"schedule.shape is {self.shape!r}; it is 'cosine' or 'constant'")
        if not 0.0 <= self.cooldown_fraction <= 1.0:
            raise ConfigError(f"schedule.cooldown_fraction is {self.cooldown_fraction:g}; it is a fraction in [0, 1]")
