"""The ways of pre-training that are compared: a base, and rows that each change one thing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from videomae.masking import DecoderKind, MaskConfig, MaskKind
from videomae.model.config import VideoMAEConfig

SIZE = 64  # pixels of a training view
POOL_SIZE = 72  # pixels of a generated clip, from which views are cropped
NUM_FRAMES = 8  # every second one of 16
Targets = Literal["normalized", "pixels", "both"]
Pool = Literal["procedural", "fixed", "motion", "fight", "drone_infrared"]


@dataclass(frozen=True)
class Way:
    """One way of pre-training; the default is the base."""

    targets: Targets = "normalized"
    mask_kind: MaskKind = "tube"
    mask_ratio: float = 0.75
    ratio_from: float | None = None
    """Ratio at the start where it grows linearly; rounded to twentieths."""
    decode_fraction: float = 0.5
    """Fraction of the hidden tokens that is predicted."""
    running_cell: bool = False
    """VideoMAE V2's decoder masking instead: half of all tokens is decoded, hidden ones among them count."""
    lookup: bool = True
    """Decoder initialized as a look-up of neighboring visible tokens."""
    muon: bool = True
    """Muon for the matrices, AdamW for the rest; else AdamW for all."""
    muon_lr: float = 0.01
    lr: float = 1.5e-3
    """AdamW's."""
    weight_decay: float = 0.02
    batch_size: int = 32
    warmup: float = 0.03
    """Fraction of the budget."""
    cooldown: float = 0.3
    """Fraction of the budget in which the rate falls linearly to zero."""
    repeats: int = 1
    """Masks drawn for each clip of a batch; a batch then has `batch_size / repeats` clips."""
    crops: bool = True
    """Views at random places and mirrored; else the middle."""
    pool: Pool = "procedural"
    positions: Literal["raster", "3d"] = "raster"
    ema: float = 0.0
    """Decay of an average of the weights, which is then measured; 0: the weights themselves."""
    budget: float = 1.0
    """Times the common budget; 0: an untrained model."""
    sizes: dict[str, Any] = field(default_factory=dict)
    """Fields of VideoMAEConfig that differ."""
    frame_step: int = 1
    """Of the eight frames, every such one."""

    def mask(self, spent: float) -> MaskConfig:
        """Return the mask after this fraction of the budget."""
        ratio = self.mask_ratio
        if self.ratio_from is not None:
            ratio = round(20 * (self.ratio_from + (self.mask_ratio - self.ratio_from) * spent)) / 20
        kind: DecoderKind = "running_cell" if self.running_cell else "subset" if self.decode_fraction < 1 else "all"
        decoder_ratio = 0.5 if kind != "subset" else 1 - self.decode_fraction
        return MaskConfig(kind=self.mask_kind, ratio=ratio, decoder_kind=kind, decoder_ratio=decoder_ratio)

    @property
    def pixels(self) -> int:
        """Height and width of the model's frames."""
        return int(self.sizes.get("image_size", SIZE))

    def config(self) -> VideoMAEConfig:
        """Return the model's configuration: 0.9 million parameters with the decoder."""
        sizes: dict[str, Any] = dict(  # noqa: C408
            image_size=SIZE,
            patch_size=8,
            num_frames=NUM_FRAMES // self.frame_step,
            tubelet_size=2,
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=512,
            decoder_hidden_size=64,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=4,
            decoder_intermediate_size=256,
            layer_norm_eps=1e-6,
            use_mean_pooling=False,
            norm_pix_loss=self.targets == "normalized",
        )
        return VideoMAEConfig(**{**sizes, **self.sizes})


BASE = Way()
PAPER = Way(lookup=False, muon=False, lr=1e-3, decode_fraction=1.0, mask_ratio=0.9)
WAYS: dict[str, Way] = {
    "untrained": replace(BASE, budget=0.0),
    "base": BASE,
    "the paper's": PAPER,
    # evidence: masks
    "tube 0.5": replace(BASE, mask_ratio=0.5),
    "tube 0.9": replace(BASE, mask_ratio=0.9),
    "tube 0.95": replace(BASE, mask_ratio=0.95),
    "random 0.5": replace(BASE, mask_kind="random", mask_ratio=0.5),
    "random 0.75": replace(BASE, mask_kind="random"),
    "random 0.9": replace(BASE, mask_kind="random", mask_ratio=0.9),
    "random 0.95": replace(BASE, mask_kind="random", mask_ratio=0.95),
    "frame 0.5": replace(BASE, mask_kind="frame", mask_ratio=0.5),
    "frame 0.75": replace(BASE, mask_kind="frame"),
    # what is predicted
    "pixels": replace(BASE, targets="pixels"),
    "pixels and normalized": replace(BASE, targets="both"),
    "all hidden tokens decoded": replace(BASE, decode_fraction=1.0),
    "running cells decoded": replace(BASE, running_cell=True),
    # start and optimizer
    "Xavier decoder": replace(BASE, lookup=False),
    "AdamW 3e-3": replace(BASE, muon=False, lr=3e-3),
    "rates / 3": replace(BASE, muon_lr=0.0033, lr=5e-4),
    "rates x 3": replace(BASE, muon_lr=0.03, lr=4.5e-3),
    # batches and schedule
    "batch 8": replace(BASE, batch_size=8),
    "batch 128": replace(BASE, batch_size=128),
    "no warm-up": replace(BASE, warmup=0.0),
    "warm-up 0.2": replace(BASE, warmup=0.2),
    "mask 0.5 to 0.9": replace(BASE, ratio_from=0.5, mask_ratio=0.9),
    "four masks a clip": replace(BASE, repeats=4),
    "average of the weights": replace(BASE, ema=0.99),
    # clips
    "no crops": replace(BASE, crops=False),
    "320 clips": replace(BASE, pool="fixed"),
    "motion clips": replace(BASE, pool="motion"),
    # the model
    "tubelet 1, half the frames": replace(BASE, sizes={"tubelet_size": 1}, frame_step=2),
    "patch 16": replace(BASE, sizes={"patch_size": 16}),
    "32 pixels, patch 4": replace(BASE, sizes={"patch_size": 4, "image_size": 32}),
    "decoder 128 wide": replace(
        BASE, sizes={"decoder_hidden_size": 128, "decoder_intermediate_size": 512, "decoder_num_attention_heads": 4}
    ),
    "separable positions": replace(BASE, positions="3d"),
    # time
    "twice the time": replace(BASE, budget=2.0),
    "four times the time": replace(BASE, budget=4.0),
}
