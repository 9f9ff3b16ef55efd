"""A convolution in two parts, a dense and a depthwise one, that engines compute in parallel."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hwcost.search.quantized_export import Quantizer
from hwcost.search.swap import AROUND, TRANSFORMS, add_transform, put_around, user_class

#: Names of the two parts in a ``SplitConv``.
PARTS = ("dense", "depthwise")


class SplitConv(nn.Module):
    """Some output channels of a convolution from all inputs, others from one input each.

    Args:
        dense: makes channels from all inputs, None if none are made so.
        depthwise: makes each of its channels from one.
        reads: the input of each of these, int64.
        order: which of the channels made, the dense ones first, stands at each place, int64.
        inputs: how many input channels there are.
    """

    reads: Tensor
    order: Tensor

    def __init__(
        self, dense: nn.Module | None, depthwise: Any, reads: Tensor, order: Tensor, inputs: int
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.groups = inputs, len(order), 1
        self.kernel_size, self.stride = depthwise.kernel_size, depthwise.stride
        self.padding, self.dilation = depthwise.padding, depthwise.dilation
        self.padding_mode = depthwise.padding_mode
        self.dense, self.depthwise = dense, depthwise
        self.register_buffer("reads", reads, persistent=False)
        self.register_buffer("order", order, persistent=False)
        first, count = int(reads[0]), len(reads)
        #: The first input of the depthwise part where it reads some that stand together.
        self.first = first if reads.tolist() == list(range(first, first + count)) else -1
        self.in_order = order.tolist() == list(range(len(order)))

    @property
    def weight(self) -> Tensor:
        """The weights as one dense convolution would have them."""
        inner: Tensor = self.depthwise.weight
        places = torch.arange(len(inner), device=inner.device)
        full = inner.new_zeros(len(inner), self.in_channels, *inner.shape[2:])
        full[places, self.reads] = inner[:, 0]
        parts = [full] if self.dense is None else [self.dense.weight, full]
        return torch.cat(parts)[self.order]  # type: ignore[arg-type]

    @property
    def bias(self) -> Tensor | None:
        """The bias of all channels."""
        parts = [part.bias for part in (self.dense, self.depthwise) if part is not None]
        return None if parts[0] is None else torch.cat(parts)[self.order]  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return all channels; the first dimension but one of ``x`` is that of the inputs."""
        dim = x.dim() - len(self.kernel_size) - 1
        if self.first < 0:
            read = x.index_select(dim, self.reads)
        else:
            read = x.narrow(dim, self.first, len(self.reads))
        found: Tensor = self.depthwise(
            read
        )  # before the dense part: who reads ``x`` last is the op
        if self.dense is not None:
            found = torch.cat([self.dense(x), found], dim)
        return found if self.in_order else found.index_select(dim, self.order)


def split(module: Any, kernel: nn.Parameter, depthwise: Sequence[bool], reads: Tensor) -> nn.Module:
    """Return what takes the place of a dense convolution of an exported network.

    Args:
        module: the convolution, quantized.
        kernel: weights of all channels as depthwise ones, shape ``(channels, 1, ...)``.
        depthwise: which channels are.
        reads: the input channel that each would read, int64, shape ``(channels,)``.
    """
    chosen = torch.tensor(depthwise)
    inner, outer = chosen.nonzero().flatten(), (~chosen).nonzero().flatten()
    dense = _part(module, outer, module._parameters["weight"], 1) if len(outer) else None
    part = _part(module, inner, kernel, len(inner))
    order = torch.cat([outer, inner]).argsort()
    device = kernel.device
    whole = SplitConv(dense, part, reads[inner].to(device), order.to(device), module.in_channels)
    if dense is None and whole.first == 0 and len(inner) == module.in_channels:
        _move_around(module, part)
        return part
    _move_around(module, whole)
    return whole.train(module.training)


def _part(module: Any, index: Tensor, weight: nn.Parameter, groups: int) -> nn.Module:
    """Return a convolution that makes some of a module's channels, with its quantizers."""
    part = user_class(module)(
        in_channels=module.in_channels if groups == 1 and weight.shape[1] > 1 else len(index),
        out_channels=len(index),
        kernel_size=module.kernel_size,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        groups=groups,
        bias=module._parameters["bias"] is not None,
        padding_mode=module.padding_mode,
        device="meta",
    )
    given = {"weight": weight, "bias": module._parameters["bias"]}
    for name, whole in given.items():
        if whole is not None:
            data = whole.detach()[index.to(whole.device)]
            part._parameters[name] = nn.Parameter(data, requires_grad=whole.requires_grad)
    for name, transforms in module.__dict__.get(TRANSFORMS, {}).items():
        for transform in transforms:
            _add_quantizer(part, name, module, transform, index)
    return part.train(module.training)


def _add_quantizer(
    part: nn.Module, name: str, module: nn.Module, quantizer: Quantizer, index: Tensor
) -> None:
    scale = module.get_buffer(quantizer.scale)
    part.register_buffer(quantizer.scale, scale[index.to(scale.device)])
    places = index.tolist()
    own = replace(
        quantizer,
        grids=tuple(quantizer.grids[i] for i in places),
        engines=tuple(quantizer.engines[i] for i in places) if quantizer.engines else (),
    )
    add_transform(part, name, own)


def _move_around(old: nn.Module, new: nn.Module) -> None:
    """Let what surrounds a module surround another, with the buffers that it reads."""
    around = old.__dict__.get(AROUND)
    if around is None:
        return
    for name, buffer in old.named_buffers(recurse=False):
        if not hasattr(new, name):
            new.register_buffer(name, buffer)
    put_around(new, around)


def replaced(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module where another stands in a network."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is old:
                parent._modules[name] = new
