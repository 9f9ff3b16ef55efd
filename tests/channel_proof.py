"""A slow and obvious reference: a network that ignores dead channels wherever it reads them."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwcost.search.channels import Channels, Norm


def random_alive(channels: Channels, generator: torch.Generator) -> Tensor:
    """Return which classes stay, half of them, and one of each weight's at least."""
    alive = torch.rand(channels.n_classes, generator=generator) < 0.5
    for axis in channels.axes:
        for name in axis.producers:
            own = torch.cat([cut.classes for cut in channels.cuts[name]])
            own = own[(own >= axis.start) & (own < axis.start + axis.size)]
            alive[own[torch.randint(len(own), (1,), generator=generator)]] = True
    return alive


def stir(model: nn.Module) -> nn.Module:
    """Put every bias, scale and statistic off its default, and evaluate."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return model.eval()


def ignoring(model: nn.Module, channels: Channels, alive: Tensor) -> nn.Module:
    """Return a copy of all sizes in which dead channels are read by nobody."""
    model, keep = copy.deepcopy(model), torch.cat([alive, torch.ones(1, dtype=torch.bool)])
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, cuts in channels.cuts.items():
            for cut in cuts:
                if cut.role == "in":
                    shape = [-1 if d == cut.dim else 1 for d in range(parameters[name].dim())]
                    parameters[name].mul_(keep[cut.classes].view(shape))
    for path, norm in channels.norms.items():
        _replace(model.get_submodule(path), norm, keep[norm.classes])
    return model


def _replace(module: nn.Module, norm: Norm, keep: Tensor) -> None:
    own = module.forward

    def forward(*args: Any) -> Any:
        with _replaced(norm, keep):
            return own(*args)

    module.forward = forward


@contextmanager
def _replaced(norm: Norm, keep: Tensor) -> Iterator[None]:
    def layer(
        x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
    ) -> Tensor:
        return affine(normalised(x, len(shape), eps), weight, bias)

    def normalised(x: Tensor, rank: int, eps: float) -> Tensor:
        flat = x.flatten(-rank)
        var, mean = torch.var_mean(flat[..., keep], -1, correction=0, keepdim=True)
        return ((flat - mean) / (var + eps).sqrt()).view(x.shape)

    def rms(x: Tensor, shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
        mean = x[..., keep].square().mean(-1, keepdim=True)
        return affine(x / (mean + (eps or torch.finfo(x.dtype).eps)).sqrt(), weight, None)

    def group(
        x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
    ) -> Tensor:
        parts = []
        for part, kept in zip(x.chunk(groups, 1), keep.chunk(groups), strict=True):
            dims = tuple(range(1, x.dim()))
            var, mean = torch.var_mean(part[:, kept], dims, correction=0, keepdim=True)
            parts.append((part - mean) / (var + eps).sqrt())
        shape = (-1,) + (1,) * (x.dim() - 2)
        vectors = (v if v is None else v.view(shape) for v in (weight, bias))
        return affine(torch.cat(parts, 1), *vectors)

    with mock.patch.multiple(F, layer_norm=layer, rms_norm=rms, group_norm=group):
        yield


def affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias
