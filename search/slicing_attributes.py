"""What modules say about their channels, after these were removed."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from hwcost.recorder_values import without_compiler
from hwcost.search.attention import fit_attention
from hwcost.search.channels_values import Channels
from hwcost.search.slicing_heads import set_heads


class _Kept:
    """Which channels are kept, for the module at a path.

    Args:
        channels: of the model.
        keep: bool, shape ``(n_classes + 1,)``; the last stands for -1.
        path: the module's.
        names: of parameters, by identity.
    """

    def __init__(
        self, channels: Channels, keep: Tensor, path: str, names: Mapping[int, str]
    ) -> None:
        self.channels, self.keep, self.path, self.names = channels, keep, path, names

    def count(self, classes: Mapping[str, Tensor], usual: int) -> int:
        """Return how many channels of this module are kept."""
        own = classes.get(self.path)
        return usual if own is None else int(self.keep[own].sum())

    def groups(self, weight: Tensor, groups: int) -> int:
        """Return how many groups are kept: fewer if all channels of each are of one class."""
        normed = f"{self.path}.parametrizations.weight.original1".lstrip(".")
        cuts = self.channels.cuts.get(self.names.get(id(weight), normed), ())
        for cut in cuts:
            table = cut.classes.view(groups, -1) if cut.dim == 0 else None
            if table is not None and bool((table == table[:, :1]).all()):
                return int(self.keep[table[:, 0]].sum())
        return groups


def set_attributes(model: nn.Module, channels: Channels, keep: Tensor) -> None:
    """Set every module's numbers of channels to those of its cut parameters."""
    names = {id(p): without_compiler(name) for name, p in model.named_parameters()}
    for path, module in model.named_modules():
        kept = _Kept(channels, keep, without_compiler(path), names)
        for setter in _setters(type(module)):
            setter(module, kept)
        if not isinstance(module, nn.LayerNorm) and kept.path in channels.norms:
            _set_own_norm(module, kept)
        if not type(module).__module__.startswith("torch."):
            set_heads(module, kept.path, channels, keep)


def _setters(cls: type) -> "tuple[Callable[[Any, _Kept], None], ...]":
    """Return what sets the numbers of a class of modules."""
    if cls not in _KNOWN:
        _KNOWN[cls] = tuple(setter for one, setter in SETTERS.items() if issubclass(cls, one))
    return _KNOWN[cls]


def _set_conv(module: Any, kept: _Kept) -> None:
    first, second = module.weight.shape[:2]
    module.groups = kept.groups(module.weight, module.groups) if module.groups > 1 else 1
    second *= module.groups
    turned = isinstance(module, _ConvTransposeNd)
    module.in_channels, module.out_channels = (first, second) if turned else (second, first)


def _set_linear(module: Any, kept: _Kept) -> None:
    module.out_features, module.in_features = module.weight.shape


def _set_per_channel(module: Any, kept: _Kept) -> None:
    given = module.weight if module.weight is not None else module.running_mean
    size = kept.count(kept.channels.features, module.num_features)
    module.num_features = size if given is None else len(given)


def _set_layer_norm(module: Any, kept: _Kept) -> None:
    if module.weight is not None:
        module.normalized_shape = tuple(module.weight.shape)
        return
    norm = kept.channels.norms.get(kept.path)
    if norm is not None:
        table = kept.keep[norm.classes].view(module.normalized_shape)
        rank = table.dim()
        others = [tuple(d for d in range(rank) if d != dim) for dim in range(rank)]
        sizes = [int((table.any(o) if o else table).sum()) for o in others]
        module.normalized_shape = tuple(sizes)


def _set_group_norm(module: Any, kept: _Kept) -> None:
    before = module.num_channels
    size = kept.count(kept.channels.features, before)
    if kept.path not in kept.channels.norms and size < before:
        module.num_groups = module.num_groups * size // before
    module.num_channels = size


def _set_prelu(module: Any, kept: _Kept) -> None:
    module.num_parameters = module.weight.numel()


def _set_embedding(module: Any, kept: _Kept) -> None:
    module.embedding_dim = module.weight.shape[1]


def _set_recurrent(module: Any, kept: _Kept) -> None:
    size = kept.count(kept.channels.inputs, module.input_size)
    if size < module.input_size:
        module.input_size = size
        if module.weight_ih_l0.is_cuda:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                module.flatten_parameters()


def _set_cell(module: Any, kept: _Kept) -> None:
    module.input_size = module.weight_ih.shape[1]


def _set_attention(module: Any, kept: _Kept) -> None:
    fit_attention(module)


def _set_encoder(module: Any, kept: _Kept) -> None:
    """Nested tensors are for attention as torch has it."""
    for layer in module.modules():
        if isinstance(layer, nn.MultiheadAttention):
            fit_attention(layer)
            if not layer._qkv_same_embed_dim:
                module.use_nested_tensor = False


def _set_transformer(module: Any, kept: _Kept) -> None:
    attention = next((m for m in module.modules() if isinstance(m, nn.MultiheadAttention)), None)
    if attention is not None:
        module.d_model = attention.out_proj.weight.shape[0]


def _set_own_norm(module: nn.Module, kept: _Kept) -> None:
    """A user's own layer norm often has the attribute of torch's."""
    shape = getattr(module, "normalized_shape", None)
    weight = getattr(module, "weight", None)
    if isinstance(shape, (tuple, list, torch.Size)) and isinstance(weight, Tensor):
        object.__setattr__(module, "normalized_shape", type(shape)(weight.shape))


#: Type of a module -> what sets its numbers of channels.
SETTERS: dict[type[nn.Module], Callable[[Any, _Kept], None]] = {
    _ConvNd: _set_conv,
    nn.Linear: _set_linear,
    _NormBase: _set_per_channel,
    nn.LayerNorm: _set_layer_norm,
    nn.RMSNorm: _set_layer_norm,
    nn.GroupNorm: _set_group_norm,
    nn.PReLU: _set_prelu,
    nn.Embedding: _set_embedding,
    nn.EmbeddingBag: _set_embedding,
    nn.RNNBase: _set_recurrent,
    nn.RNNCellBase: _set_cell,
    nn.MultiheadAttention: _set_attention,
    nn.TransformerEncoder: _set_encoder,
    nn.Transformer: _set_transformer,
}

_KNOWN: dict[type, tuple[Callable[[Any, _Kept], None], ...]] = {}
