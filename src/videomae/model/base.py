"""What all models share: configuration, device and dtype, counts, activation checkpointing, files, layer ids."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar, overload

import torch
from torch import Tensor, nn

from videomae.errors import ConfigError
from videomae.model.config import VideoMAEConfig
from videomae.model.layers import VideoMAESelfAttention
from videomae.model.outputs import ModelOutput, is_traced_strictly
from videomae.sharing.model_methods import TransformersMethods

if TYPE_CHECKING:
    from videomae.processing.image_processor import VideoMAEImageProcessor
    from videomae.sharing.record import Record
    from videomae.weights.kinds import ModelKind
    from videomae.weights.report import LoadReport
    from videomae.weights.sources import Origin

Output = TypeVar("Output", bound=ModelOutput)
_BLOCK_INDEX = re.compile(r"(?:^|\.)encoder\.layer\.(\d+)\.")
# Of transformers' save_pretrained: those of the upload, and those that are about what is never otherwise here.
UPLOAD_OPTIONS = ("repo_id", "token", "private", "commit_message")
SAVE_OPTIONS_WITHOUT_EFFECT = "save_function safe_serialization variant save_peft_format save_original_format".split()
_FIRST_LAYER = ("embeddings.", "mask_token", "cls_token")


class VideoMAEPreTrainedModel(TransformersMethods):
    """Abstract base of the models; use one of the classes that inherit from it.

    Args:
        config: Sizes and switches; kept as `self.config` and never written to.
    """

    config_class: ClassVar[type[VideoMAEConfig]] = VideoMAEConfig
    base_model_prefix: ClassVar[str] = "videomae"
    main_input_name: ClassVar[str] = "pixel_values"
    supports_gradient_checkpointing: ClassVar[bool] = True

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.config = config
        self.origin: Origin | None = None  # set by from_pretrained

    @property
    def device(self) -> torch.device:
        """The device of the first parameter."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first parameter."""
        return next(self.parameters()).dtype

    @property
    def base_model(self) -> nn.Module:
        """The encoder; of the bare encoder, itself."""
        return getattr(self, self.base_model_prefix, self)

    @staticmethod
    def class_of(kind: ModelKind) -> type[VideoMAEPreTrainedModel]:
        """Return the model class that a row of `weights.kinds.KINDS` names."""
        found: type[VideoMAEPreTrainedModel] = getattr(import_module(kind.module), kind.class_name)
        return found

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Use activation checkpointing in training: compute again in the backward pass instead of keeping.

        Args:
            activation_checkpointing_kwargs: Accepted as upstream. Checkpointing is never reentrant, which gives the
                same numbers; `use_reentrant=True` gives a warning.
            every_n_layers: Do so in block 0 and every so many blocks after it, of the encoder and of the decoder.
            offload: Refused: activations stay on the device.

        Raises:
            ValueError: If `every_n_layers` is not positive, or with `offload`.
        """
        if every_n_layers < 1:
            raise ValueError(f"every_n_layers is {every_n_layers}; it must be at least 1")
        if offload:
            raise ValueError("offload=True is not supported: leave it out, or save memory with every_n_layers=1")
        if dict(activation_checkpointing_kwargs or {}).get("use_reentrant"):
            text = "use_reentrant=True has no effect: non-reentrant checkpointing is used, with the same numbers"
            warnings.warn(text, UserWarning, stacklevel=2)
        self._set_checkpointing(every_n_layers)

    def activation_checkpointing_disable(self) -> None:
        """Keep activations again."""
        self._set_checkpointing(0)

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether activation checkpointing is on."""
        return any(getattr(one, "checkpoint_every", 0) for one in self.modules())

    def _set_checkpointing(self, every: int) -> None:
        for module in self.modules():
            if hasattr(module, "checkpoint_every"):  # a stack of layers
                setattr(module, "checkpoint_every", every)  # noqa: B010

    def post_init(self) -> None:
        """Draw the weights of all parts that are no model themselves; the last call of a constructor, as upstream."""
        self.init_weights()

    def init_weights(self) -> None:
        """Call `_init_weights` for every module of the parts that are no model themselves."""
        for child in self.children():
            if not isinstance(child, VideoMAEPreTrainedModel):
                for module in drawn_modules(child):
                    self._init_weights(module)

    def _init_weights(self, module: nn.Module) -> None:
        """Draw the weights of one module: linear ones from a truncated normal; the rest keeps torch's defaults.

        Source: VideoMAE, fine-tuning model. The tubelet projection keeps torch's Conv3d default, as there.
        """
        std = self.config.initializer_range
        draw_linear(module, lambda weight: nn.init.trunc_normal_(weight, std=std))
        cls_token = getattr(module, "cls_token", None)
        if isinstance(cls_token, Tensor):
            nn.init.trunc_normal_(cls_token, std=std)

    def wanted(self, output_attentions: bool | None, output_hidden_states: bool | None) -> dict[str, bool]:
        """Return the options with which a part is asked for what the call, or else the configuration, asks for.

        Empty for neither, so that parts in the place of ours need not know the options.
        """
        asked = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        configured = {name: bool(getattr(self.config, name)) for name in asked}
        chosen = {name: configured[name] if value is None else value for name, value in asked.items()}
        return {name: value for name, value in chosen.items() if value or configured[name]}

    def format_output(self, output: Output, return_dict: bool | None) -> Output | tuple[Any, ...]:
        """Return an output as an object or, where the call or else the configuration says so, as a tuple.

        `torch.jit.trace` takes no mapping from what it traces unless `strict` is False: it gets a tuple, too.
        """
        wanted = self.config.return_dict if return_dict is None else return_dict
        return output if wanted and not is_traced_strictly(self) else output.to_tuple()

    @property
    def num_layer_ids(self) -> int:
        """Number of layer ids for layer-wise learning-rate decay: embedding, blocks, head."""
        return self.config.num_hidden_layers + 2

    def layer_id(self, name: str) -> int:
        """Return the layer id of a parameter: 0 embedding, i + 1 block i, depth + 1 the rest.

        Source: VideoMAE fine-tuning, layer-wise learning-rate decay.
        """
        block = _BLOCK_INDEX.search(name)
        if block and "decoder" not in name:
            return int(block.group(1)) + 1
        if name.removeprefix("videomae.").startswith(_FIRST_LAYER):
            return 0
        return self.config.num_hidden_layers + 1

    def no_weight_decay(self) -> frozenset[str]:
        """Return the names of parameters that weight decay must spare besides vectors and biases."""
        spared = ("mask_token", "cls_token")
        return frozenset(name for name, _ in self.named_parameters() if name.endswith(spared))

    def save_pretrained(
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        *,
        max_shard_size: int | str = "5GB",
        processor: VideoMAEImageProcessor | None = None,
        record: Record | None = None,
        push_to_hub: bool = False,
        **upstream: Any,
    ) -> None:
        """Write a model folder that transformers 4 and 5 read too.

        Args:
            save_directory: Made if it is missing. Each file is replaced atomically, the weights at once.
            is_main_process: False writes nothing, for programs of several processes.
            state_dict: Tensors to write instead of this model's own, by the same names.
            max_shard_size: Larger weights are cut into several files with an index.
            processor: To write beside the weights; otherwise, where the folder has none, that of the folder which
                this model was loaded from, or else that of the published models.
            record: Frame sampling and training, for `videomae.json`, a `ModelRecord` or plain values; otherwise,
                where the folder has none, the sampling of the folder which this model was loaded from.
            push_to_hub: Also upload the folder, as `repo_id`, or else under its own name for the account that is
                logged in.
            **upstream: `repo_id`, `token`, `private` and `commit_message` of the upload; and `save_function`,
                `safe_serialization`, `variant`, `save_peft_format`, `save_original_format`, which change nothing:
                safetensors under the published names are written.

        Raises:
            WeightsError: If the folder or a file cannot be written.
            ConfigError: If an option is unknown.
        """
        from videomae.sharing.beside import save_beside
        from videomae.sharing.publishing import publish_folder
        from videomae.sharing.record import as_record
        from videomae.weights.hub import check_name
        from videomae.weights.saving import save_model

        upload = {name: upstream[name] for name in UPLOAD_OPTIONS if name in upstream}
        for name in upstream.keys() - {*UPLOAD_OPTIONS, *SAVE_OPTIONS_WITHOUT_EFFECT}:
            raise ConfigError(
                f"unknown option {name!r} of save_pretrained: see its documentation for those there are"
            )
        if not is_main_process:
            return
        folder = Path(save_directory)
        repo_id = upload.pop("repo_id", None) or folder.resolve().name
        if push_to_hub:
            check_name(repo_id)
        checked = None if record is None else as_record(record)
        save_model(self, folder, max_shard_size=max_shard_size, tensors=state_dict)
        save_beside(folder, self.config, origin=self.origin, processor=processor, record=checked)
        if push_to_hub:
            publish_folder(folder, repo_id, config_class=self.config_class, **upload)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        processor: VideoMAEImageProcessor | None = None,
        record: Record | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str | None = None,
    ) -> str:
        """Save the model and upload it with a card made from the record; see `save_pretrained`.

        Args:
            repo_id: `owner/name` on the Hub, or a name alone for the account that is logged in; made if missing.
            processor: As for `save_pretrained`.
            record: As for `save_pretrained`; what it says of data, recipe, metrics and licence is on the card.
            private: Whether a new repository is private; None: as the owner's account says.
            token: Access token; None: the one that is logged in.
            commit_message: Of the upload.

        Returns:
            The address of the commit.

        Raises:
            WeightsError: If the Hub refuses, or cannot be reached.
        """
        from videomae.sharing.publishing import publish_folder
        from videomae.weights.hub import check_name

        check_name(repo_id)
        with tempfile.TemporaryDirectory() as name:
            self.save_pretrained(name, processor=processor, record=record)
            return publish_folder(
                Path(name),
                repo_id,
                config_class=self.config_class,
                private=private,
                token=token,
                commit_message=commit_message,
            )

    @overload
    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, output_loading_info: Literal[True], **options: Any
    ) -> tuple[Self, LoadReport]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, output_loading_info: Literal[False] = False, **options: Any
    ) -> Self: ...

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, output_loading_info: bool = False, **options: Any
    ) -> Self | tuple[Self, LoadReport]:
        """Load a model of any published layout, with every tensor accounted for.

        A pre-training file in a classifier gives it a randomly initialized head, a classifier's file in a
        pre-training model a randomly initialized decoder, both with a warning. Anything else that is missing or left
        over is an error, or ignored with a warning where the configuration or the kind of model says why.

        Args:
            source: A model folder, the folder of a finished run, a DeepSpeed folder, a `.safetensors`, `.bin` or
                `.pth` file, a Hub name: `owner/name`, or `owner/name/path/of/a/file.pth`, or `default`, the model
                that ships with the package.
            output_loading_info: Also return the report.
            **options: transformers' `config`, `revision`, `token`, `cache_dir`, `local_files_only`,
                `force_download`, `subfolder`, `use_safetensors`, `dtype` (or `torch_dtype`; "auto" is the file's,
                the default is float32), `device_map`, `ignore_mismatched_sizes`, `attn_implementation`; `strict`
                (False: load what fits), `fresh_head` (True: a new classifier), `head_rows` (rows of the file's
                classifier, in the order of the new classes), `adapt_channels` ("mean" or "repeat", for another
                `num_channels`); and any field of the configuration, which then differs from the file's.

        Returns:
            The model in eval mode; with `output_loading_info` also what happened to every tensor.

        Raises:
            WeightsError: If there is nothing to load, or what there is is damaged or does not fit.
            ConfigError: If an option is unknown or at fault.
        """
        from videomae.weights.loading import load_pretrained

        loaded = load_pretrained(cls, source, options)
        return (loaded.model, loaded.report) if output_loading_info else loaded.model


def as_tuple(states: list[Tensor] | None) -> tuple[Tensor, ...] | None:
    """Return collected states as the tuple that outputs hold."""
    return None if states is None else tuple(states)


def drawn_modules(module: nn.Module) -> Iterator[nn.Module]:
    """Yield a module and its parts; the three projections of an attention are drawn with it, as one matrix."""
    yield module
    if not isinstance(module, VideoMAESelfAttention):
        for child in module.children():
            yield from drawn_modules(child)


@torch.no_grad()
def draw_linear(module: nn.Module, draw: Callable[[Tensor], object]) -> None:
    """Draw the weight of a linear layer and zero its bias; other modules stay as they are.

    Queries, keys and values are drawn as the one matrix `[3 * D, D]` that they are in the original, whose
    initialization depends on the shape.

    Args:
        module: Any module.
        draw: Fills a weight in place.
    """
    if isinstance(module, VideoMAESelfAttention):
        linears = [module.query, module.key, module.value]
    elif isinstance(module, nn.Linear):
        linears = [module]
    else:
        return
    if linears[0].weight.is_meta:  # nothing to draw, and torch.cat of such tensors imports torch's compiler: a second
        return
    whole = torch.cat([one.weight for one in linears])
    draw(whole)
    for one, weight in zip(linears, whole.chunk(len(linears)), strict=True):
        one.weight.copy_(weight)
        if one.bias is not None:
            nn.init.zeros_(one.bias)
