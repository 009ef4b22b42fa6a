"""The options of `from_pretrained`, told apart from fields of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from videomae.errors import ConfigError
from videomae.weights.hub import HubOptions
from videomae.weights.matching import ChannelAdaption

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
ATTENTION = (None, "sdpa", "eager")
# transformers' arguments that change nothing here: nothing is ever loaded twice, and no code of a repository is run.
IGNORED = frozenset(
    """low_cpu_mem_usage trust_remote_code weights_only _fast_init resume_download proxies mirror max_memory
    offload_folder offload_state_dict offload_buffers use_cache finetuning_task code_revision adapter_kwargs
    _from_auto _commit_hash""".split()
)
# Those that would change something: taken at the values that ask for nothing, with what to do for the others.
ONLY_DEFAULT: dict[str, tuple[tuple[object, ...], str]] = {
    "variant": ((None, ""), "name the file itself: owner/name/path/of/a/file"),
    "from_tf": ((None, False), "TensorFlow weights are not read: convert them with transformers 4 first"),
    "from_flax": ((None, False), "Flax weights are not read: convert them with transformers 4 first"),
    "key_mapping": ((None, {}), "rename the tensors of the file first"),
    "tp_plan": ((None,), "wrap the loaded model with torch.distributed.tensor.parallel"),
    "tp_size": ((None,), "wrap the loaded model with torch.distributed.tensor.parallel"),
    "device_mesh": ((None,), "wrap the loaded model with torch.distributed"),
    "gguf_file": ((None, ""), "give safetensors or a pickled file"),
    "load_in_8bit": ((None, False), "quantize the loaded model, for example with torchao.quantization.quantize_"),
    "load_in_4bit": ((None, False), "quantize the loaded model, for example with torchao.quantization.quantize_"),
    "quantization_config": ((None,), "quantize the loaded model, for example with torchao.quantization.quantize_"),
    "torchscript": ((None, False), "give return_dict=False and trace the loaded model with torch.jit.trace"),
    "state_dict": ((None,), "load the model and call load_state_dict, or give the file of the tensors"),
}


@dataclass(frozen=True)
class LoadOptions:
    """What `from_pretrained` takes besides fields of the configuration; names are transformers' where it has them."""

    config: object = None
    """Instead of the source's: a configuration, or a folder or file that has one. It is taken as it is."""
    dtype: torch.dtype | str | None = None
    """Of the parameters: a dtype or its name, "auto" for the file's; None: float32."""
    ignore_mismatched_sizes: bool = False
    """Randomly initialize tensors whose shapes differ instead of refusing."""
    strict: bool = True
    """Refuse files that lack tensors or have others; False: load what fits."""
    head_rows: tuple[int, ...] | None = None
    """Rows of the file's classifier to keep, in the order of the new classes."""
    fresh_head: bool = False
    """Randomly initialize the classifier even where the file's would fit, for as many other classes."""
    adapt_channels: ChannelAdaption = "mean"
    """How another `num_channels` is reached: "mean" or "repeat"; see `videomae.weights.matching.adapt`."""
    interpolate_positions: bool = True
    """With another `num_frames` or `image_size`: interpolate positions; False: compute them anew, as transformers."""
    use_safetensors: bool | None = None
    """True: safetensors only; False: pickled files only."""
    device_map: Any = None
    """A device, or "auto": the GPU where there is one."""
    hub: HubOptions = field(default_factory=HubOptions)
    """How a repository is read."""


def split_options(arguments: Mapping[str, Any]) -> tuple[LoadOptions, dict[str, Any]]:
    """Divide the keyword arguments of `from_pretrained` into options and fields of the configuration.

    Raises:
        ConfigError: If an option is given twice or has a value that means nothing.
    """
    rest = {name: value for name, value in arguments.items() if name not in IGNORED}
    for name in ONLY_DEFAULT.keys() & rest.keys():
        value, (defaults, hint) = rest.pop(name), ONLY_DEFAULT[name]
        if not any(value is default or (type(value) is type(default) and value == default) for default in defaults):
            what = type(value).__name__ if isinstance(value, Mapping) else repr(value)[:60]
            raise ConfigError(f"{name} is {what}, which from_pretrained does not take: {hint}")
    attention = rest.pop("attn_implementation", None)
    if attention not in ATTENTION:
        raise ConfigError(f"attn_implementation is {attention!r}: choose sdpa or eager, which compute the same here")
    old = rest.pop("torch_dtype", None)
    if old is not None and rest.setdefault("dtype", old) != old:
        raise ConfigError("dtype and torch_dtype are one option: give one of them")
    token = rest.pop("use_auth_token", None)  # the name before token
    if token is not None:
        rest.setdefault("token", token)
    hub = {name: rest.pop(name) for name in HubOptions.__dataclass_fields__ if name in rest}
    own = {name: rest.pop(name) for name in LoadOptions.__dataclass_fields__ if name in rest and name != "hub"}
    if own.get("head_rows") is not None:
        own["head_rows"] = tuple(int(row) for row in own["head_rows"])
    if not own.get("interpolate_positions", True):
        rest["position_grid"] = None
    options = LoadOptions(**own, hub=HubOptions(**{name: value for name, value in hub.items() if value is not None}))
    if options.adapt_channels not in ("mean", "repeat"):
        raise ConfigError(f"adapt_channels is {options.adapt_channels!r}: choose mean or repeat")
    names = (*DTYPES, "auto")
    if options.dtype is not None and str(options.dtype).removeprefix("torch.") not in names:
        raise ConfigError(f"dtype is {options.dtype!r}: choose one of {', '.join(names)}")
    return options, rest
