"""The experiments of docs/learning.md, each in a time box, with results written after every part.

    python -m experiments.learning.run ablate --data DATA --out OUT --seconds 100
    python -m experiments.learning.run main   --data DATA --out OUT --seconds 400 --pretrain-seconds 200
    python -m experiments.learning.run seed   --data DATA --out OUT --seconds 360 --pretrain-steps 7500 --seed 1

`seed` is a shorter `main` from other initial values and other clips, without what does not depend on them. `--tiny`
shrinks everything, for rehearsal on a CPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.learning.downstream import FineTuner, Row, attentive_probe, frozen_tokens, linear_probe
from experiments.learning.labelled import Labelled, few, motion_set, packed_set
from experiments.learning.pretraining import ClipPool, held_out, pretrain, synchronize
from experiments.learning.reconstruction import contact_sheet, measure
from experiments.learning.settings import ABLATIONS, Pretraining, new_model
from videomae.data.procedural import ProceduralVideos
from videomae.masking import MaskConfig
from videomae.model.pretraining import VideoMAEForPreTraining

COMMON_MASK = MaskConfig(kind="tube", ratio=0.75)
FINETUNE_RATES = (2e-4, 6e-4, 2e-3, 6e-3)


@dataclass
class Run:
    """One process: its clock, its results, its sizes."""

    out: Path
    data: Path
    seconds: float
    tiny: bool
    begin: float = field(default_factory=time.perf_counter)
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """CUDA where it is."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.seconds - (time.perf_counter() - self.begin)

    def pick(self, full: Any, tiny: Any) -> Any:
        """Return a size."""
        return tiny if self.tiny else full

    def save(self) -> None:
        """Write what is known so far."""
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "results.json").write_text(json.dumps(self.results, default=_plain))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part; its failure is recorded and does not end the run."""
        start = time.perf_counter()
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.results.setdefault("failures", {})[name] = repr(error)
        self.results.setdefault("part_seconds", {})[name] = round(time.perf_counter() - start, 2)
        self.save()
        print(f"[{time.perf_counter() - self.begin:6.1f} s] {name}: {time.perf_counter() - start:.1f} s", flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    return str(value)


def main() -> None:
    """Run one of the two experiments."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("ablate", "main", "seed"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--pretrain-seconds", type=float, default=12.0)
    parser.add_argument("--pretrain-steps", type=int, help="instead of a time")
    parser.add_argument("--seed", type=int, default=0, help="of the initial values and of the clips")
    parser.add_argument("--settings", default="full")
    parser.add_argument("--change", default="{}", help="JSON of fields of Pretraining that differ")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    run = Run(options.out, options.data, options.seconds, options.tiny)
    torch.set_float32_matmul_precision("high")
    run.results["machine"] = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if run.device.type == "cuda" else platform.processor(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    settings = replace(ABLATIONS[options.settings], **json.loads(options.change))
    settings = replace(settings, batch_size=run.pick(settings.batch_size, 2))
    pool = None
    with run.part("pool"):
        pool = ClipPool(seed=options.seed, capacity=run.pick(32768, 64), batch=run.pick(256, 8), device=run.device)
        run.results["pool_clips_per_second"] = pool.fill()
        print("clips per second", run.results["pool_clips_per_second"])
    assert pool is not None, "no clips"
    if options.what == "ablate":
        ablate(run, pool, options.pretrain_seconds)
    else:
        long_run(run, pool, settings, options)
    run.results["total_seconds"] = time.perf_counter() - run.begin
    if run.device.type == "cuda":
        run.results["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    run.save()
    print("failures:", run.results.get("failures", {}))


# ---- which way of pre-training learns most per second -------------------------------------------------------------


def ablate(run: Run, pool: ClipPool, seconds: float) -> None:
    """Pre-train each way for the same time; measure reconstruction and probes on the motion set."""
    with run.part("generator"):
        run.results["generator_112"] = generator_speed(run)
    data = load_sets(run, ("motion",))
    rows = run.results["ablations"] = []
    finetuner = None
    with run.part("finetuner"):
        finetuner = FineTuner(data["motion"], batch_size=run.pick(32, 4), max_steps=400)
        rows_untrained = new_model(ABLATIONS["full"], seed=0).to(run.device)
        run.results["untrained"] = probe_motion(run, rows_untrained, data["motion"], finetuner)
        print({k: v for k, v in run.results["untrained"].items() if "predictions" not in k}, flush=True)
    assert finetuner is not None
    for name, one in ABLATIONS.items():
        settings = replace(one, batch_size=run.pick(one.batch_size, 2))
        if run.left < seconds * 1.5 + 5:
            break
        with run.part(f"ablation {name}"):
            model, log = pretrain(settings, pool, seed=0, seconds=seconds, max_steps=run.pick(None, 3))
            row = {**log, "settings": asdict(settings)}
            clips = held_out(pool, run.pick(256, 8))
            row["fvu"] = measure(model, clips, COMMON_MASK, baselines=name == "full")
            row |= probe_motion(run, model, data["motion"], finetuner)
            rows.append(row)
            shown = {
                k: row[k]
                for k in (
                    "name",
                    "steps",
                    "ms_per_step",
                    "final_loss",
                    "finite",
                    "fvu",
                    "linear",
                    "attentive",
                    "finetuned",
                )
            }
            print(shown, flush=True)


def probe_motion(run: Run, model: VideoMAEForPreTraining, data: Labelled, finetuner: FineTuner) -> Row:
    """Return validation accuracies on the motion set: linear, attentive, and fine-tuned with five clips a class."""
    split = data.splits[0]
    tokens = frozen_tokens(model, data)
    K = len(data.classes)
    linear = linear_probe(time_means(tokens), data.labels, split, split.train, K)
    attentive = attentive_probe(tokens, data.labels, split, split.train, K, seeds=2, steps=run.pick(120, 3))
    train = few(data, split.train, 5, seed=0)
    tuned = {}
    for lr in (6e-4, 2e-3):
        start = finetuner.start(model, 0)
        result = finetuner.run(start, split, train, lr=lr, steps=run.pick(160, 2), seed=0)
        tuned[lr] = round(accuracy(result, data, split.test), 4)
        seconds = result["seconds"]
    return {
        "linear": accuracy(linear, data, split.test),
        "attentive": sum(accuracy(one, data, split.test) for one in attentive) / len(attentive),
        "finetuned": tuned,
        "finetune_seconds": seconds,
    }


def accuracy(row: Row, data: Labelled, test: Tensor) -> float:
    """Return the test accuracy of a row's predictions."""
    return float((row["predictions"] == data.labels.cpu()[test]).double().mean())


def time_means(tokens: Tensor) -> Tensor:
    """Average over space in each time slice: `[n, N, D]` to `[n, t * D]` float32."""
    means: Tensor = tokens.float().unflatten(1, (8, -1)).mean(2)  # [n, t, D]
    return means.flatten(1)


def generator_speed(run: Run) -> dict[str, float]:
    """Return clips per second of 16 x 112 x 112, and how far the device's pixels are from the CPU's."""
    size, batch = run.pick(112, 32), run.pick(128, 2)
    videos = ProceduralVideos(0, num_frames=16, size=size, device=run.device)
    indices = torch.arange(batch, device=run.device)
    clips = videos.clips(indices)
    synchronize(run.device)
    start = time.perf_counter()
    repeats = run.pick(8, 1)
    for number in range(repeats):
        videos.clips(indices + number * batch)
    synchronize(run.device)
    speed = repeats * batch / (time.perf_counter() - start)
    host = ProceduralVideos(0, num_frames=16, size=size)
    difference = (clips[:4].cpu().int() - host.clips(torch.arange(min(4, batch))).int()).abs().float()
    return {
        "clips_per_second": speed,
        "largest_difference": float(difference.max()),
        "fraction_different": float((difference > 0).float().mean()),
        "fraction_above_1": float((difference > 1).float().mean()),
    }


def load_sets(run: Run, names: tuple[str, ...]) -> dict[str, Labelled]:
    """Read the labelled sets; waits for the motion set, which another process draws."""
    sets: dict[str, Labelled] = {}
    for name in names:
        with run.part(f"load {name}"):
            path = run.data / f"{name}.npz"
            waited = 0.0
            while not path.exists() and waited < 90:
                time.sleep(0.5)
                waited += 0.5
            sets[name] = (motion_set if name == "motion" else packed_set)(path, run.device)
    return sets


# ---- the encoder that ships, and what it is worth ------------------------------------------------------------------


def long_run(run: Run, pool: ClipPool, settings: Pretraining, options: argparse.Namespace) -> None:
    """Pre-train for long, write the weights, then measure."""
    from PIL import Image

    model, short, seed = None, options.what == "seed", options.seed
    steps = run.pick(options.pretrain_steps, 3)
    with run.part("pretrain"):
        seconds = options.pretrain_seconds
        model, log = pretrain(settings, pool, seed=seed, seconds=seconds, max_steps=steps, renew_every=4)
        run.results["pretraining"] = {**log, "settings": asdict(settings)}
        print({k: v for k, v in log.items() if k != "log"}, flush=True)
        torch.save({name: one.half().cpu() for name, one in model.state_dict().items()}, run.out / "encoder_fp16.pt")
    assert model is not None
    procedural = held_out(pool, run.pick(512, 8))
    del pool
    data = load_sets(run, ("motion", "fight", "drone_infrared"))
    untrained = new_model(settings, seed=seed).to(run.device)
    with run.part("reconstruction"):
        sets = {"procedural": procedural}
        for name, one in data.items():
            rows = one.splits[0].test if name == "motion" else torch.arange(len(one.labels))
            rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[: run.pick(300, 8)]]
            sets[name] = one.views(rows.to(run.device), augment=False).round().to(torch.uint8)
        run.results["reconstruction"] = {}
        for name, clips in sets.items():
            found = measure(model, clips, COMMON_MASK, baselines=True)
            found["untrained"] = measure(untrained, clips, COMMON_MASK, baselines=False)["model"]
            found["mask_90"] = measure(model, clips, MaskConfig(kind="tube", ratio=0.9), baselines=False)["model"]
            run.results["reconstruction"][name] = found
            print(name, found, flush=True)
            Image.fromarray(contact_sheet(model, clips[:6], COMMON_MASK).numpy()).save(run.out / f"seen_{name}.png")
    encoders: Encoders = {"pretrained": model, "untrained": untrained}
    run.results["probes"] = []
    for name, one in data.items():
        with run.part(f"probes {name}"):
            probes(run, encoders, one, layers=(None,) if short else (None, 4))
    run.results["finetuning"] = []
    plan: list[tuple[str, int | None]] = [
        ("motion", 5),
        ("motion", None),
        ("motion", 20),
        ("fight", None),
        ("drone_infrared", None),
        ("motion", 0),
        ("fight", 20),
        ("drone_infrared", 20),
    ]
    if short:
        plan = [("motion", 5), ("fight", None), ("drone_infrared", None), ("motion", None)]
    encoders |= {} if short else {"scratch": None}
    for name, per_class in plan:
        with run.part(f"fine-tune {name} {'all' if per_class is None else per_class}"):
            if per_class == 0:
                long_scratch(run, data[name])
            else:
                finetune_set(run, encoders, data[name], per_class)


Encoders = dict[str, VideoMAEForPreTraining | None]


def probes(run: Run, encoders: Encoders, data: Labelled, *, layers: tuple[int | None, ...]) -> None:
    """Probe frozen features of each encoder, of the last layer (None) or one in the middle."""
    K = len(data.classes)
    for arm, model in encoders.items():
        assert model is not None
        for layer in layers:
            tokens = frozen_tokens(model, data, layer=layer)
            for fold, split in enumerate(data.splits[: run.pick(5, 1)]):
                for per_class in (5, 20, None) if data.name == "motion" else (20, None):
                    for seed in range(run.pick(3, 1)) if len(data.splits) == 1 else (fold,):
                        train = few(data, split.train, per_class, seed=seed)
                        common = {
                            "set": data.name,
                            "arm": arm,
                            "layer": layer or "last",
                            "fold": fold,
                            "per_class": per_class or "all",
                            "subset_seed": seed,
                        }
                        kinds = {"linear_mean": tokens.float().mean(1), "linear_time": time_means(tokens)}
                        for kind, features in kinds.items():
                            row = linear_probe(features, data.labels, split, train, K)
                            run.results["probes"].append({**common, "probe": kind, **row})
                        if layer is None and (data.name == "motion" or per_class is None):
                            for row in attentive_probe(
                                tokens, data.labels, split, train, K, seeds=run.pick(2, 1), steps=run.pick(120, 2)
                            ):
                                run.results["probes"].append({**common, "probe": "attentive", **row})
            del tokens


FINETUNE_STEPS: dict[Any, int] = {5: 160, 20: 240, None: 300}


@dataclass(frozen=True)
class Budget:
    """How long each classifier is fine-tuned, and at which rates."""

    steps: int
    batch_size: int
    rates: tuple[float, ...]


def gpu_budget(data: Labelled, per_class: int | None) -> Budget:
    """Return that of the tables of docs/learning.md."""
    if data.name == "motion":
        return Budget(FINETUNE_STEPS[per_class], 32, FINETUNE_RATES)
    return Budget(150, 32, FINETUNE_RATES[:3])


def finetune_set(
    run: Run, arms: Encoders, data: Labelled, per_class: int | None, budget: Budget | None = None
) -> None:
    """Fine-tune each arm; each at its own best rate, chosen on validation clips with the first seed of each fold."""
    budget = budget or gpu_budget(data, per_class)
    steps = run.pick(budget.steps, 2)
    tuner = FineTuner(data, batch_size=run.pick(budget.batch_size, 4), max_steps=400)
    rates = run.pick(budget.rates, budget.rates[:2])
    seeds = run.pick(3, 2) if len(data.splits) == 1 else 1
    for fold, split in enumerate(data.splits[: run.pick(5, 1)]):
        for arm, encoder in arms.items():
            best = None
            for seed in range(seeds):
                train = few(data, split.train, per_class, seed=seed + fold)
                start = tuner.start(encoder, seed)
                tried = rates if best is None else (best["lr"],)
                found = []
                for lr in tried:
                    if run.left < 3:
                        return
                    found.append(tuner.run(start, split, train, lr=lr, steps=steps, seed=seed))
                for row in found:
                    run.results["finetuning"].append(
                        {"set": data.name, "arm": arm, "fold": fold, "per_class": per_class or "all", **row}
                    )
                chosen = max(found, key=lambda row: row["val"])
                best = best or chosen
                right = f"{100 * accuracy(chosen, data, split.test):.1f}"
                words = (f"fold {fold}", arm, f"seed {seed} lr {chosen['lr']:g}", right, f"{chosen['seconds']:.2f} s")
                print(data.name, per_class, *words, flush=True)


def long_scratch(run: Run, data: Labelled) -> None:
    """Train from scratch on all labels of the motion set for eight times the steps."""
    split = data.splits[0]
    tuner = FineTuner(data, batch_size=run.pick(32, 4), max_steps=4000)
    steps = run.pick(2400, 3)
    for seed in range(3):
        for lr in (6e-4,):
            if run.left < 16:
                return
            row = tuner.run(tuner.start(None, seed), split, split.train, lr=lr, steps=steps, seed=seed)
            run.results["finetuning"].append(
                {"set": data.name, "arm": "scratch_long", "fold": 0, "per_class": "all", **row}
            )
            print(
                "scratch for long",
                seed,
                lr,
                f"{100 * accuracy(row, data, split.test):.1f}",
                f"{row['seconds']:.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
