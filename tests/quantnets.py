"""Fake-quantized nets made by hand: what a search for bits exports, without the search."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwcost.recorder_quantize import fake_quantize


class Act(nn.Module):
    """A quantizer of activations; its scale is that of the largest number it has seen.

    Not quite: from sums of codes, a scale at their maximum makes halves, which floats round
    either way.
    """

    scale: Tensor
    __call__: Callable[..., Tensor]

    def __init__(self, bits: int = 8, signed: bool = False, share: float = 0.997) -> None:
        super().__init__()
        self.bits, self.share = bits, share
        self.low = -(2 ** (bits - 1)) if signed else 0
        self.high = self.low + 2**bits - 1
        self.register_buffer("scale", torch.tensor([1e-6]))
        self.label = ""
        self.observing = False

    def forward(self, x: Tensor) -> Tensor:
        if self.observing:
            largest = x.detach().abs().max() * self.share / self.high
            self.scale.copy_(torch.maximum(self.scale, largest))
        codes = [self.bits], [self.low], [self.high]
        out: Tensor = fake_quantize(x, self.scale, *codes, 0, self.label, "")
        return out


class Product(nn.Module):
    """A layer written as a product of matrices.

    Args:
        inputs, outputs: sizes of the weight.
        function: what it computes of its input, weight and bias.
    """

    def __init__(self, inputs: int, outputs: int, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.randn(outputs))
        self.function = function


class Layer(nn.Module):
    """A convolution, a linear layer or a product with quantized weight and bias."""

    inner: Any
    w_scale: Tensor
    b_scale: Tensor
    __call__: Callable[..., Tensor]

    def __init__(self, inner: nn.Module, source: Act, bits: Sequence[int] = (8,)) -> None:
        super().__init__()
        self.inner = inner
        self.source = [source]
        transposed = isinstance(inner, nn.modules.conv._ConvTransposeNd)
        self.axis = int(transposed or isinstance(inner, Product))
        channels = self.inner.weight.shape[self.axis]
        self.bits = [bits[i % len(bits)] for i in range(channels)]
        self.high = [2 ** (b - 1) - 1 for b in self.bits]
        self.register_buffer("w_scale", torch.ones(channels))
        self.register_buffer(
            "b_scale", torch.ones(0 if self.inner.bias is None else len(self.inner.bias))
        )
        self.label = ""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias, label = self.inner.weight, self.inner.bias, self.label
        if self.source[0].observing:
            others = [d for d in range(weight.dim()) if d != self.axis]
            largest = weight.detach().abs().amax(others)
            self.w_scale.copy_(largest / torch.tensor(self.high))
            if bias is not None:
                repeats = len(bias) // len(self.w_scale)
                self.b_scale.copy_(self.source[0].scale * self.w_scale.repeat(repeats))
        low = [-h for h in self.high]
        axis = self.axis
        weight = fake_quantize(
            weight, self.w_scale, self.bits, low, self.high, axis, label + ".weight", ""
        )
        if bias is not None:
            n = len(bias)
            least, most = [-(2**31)] * n, [2**31 - 1] * n
            bias = fake_quantize(bias, self.b_scale, [32] * n, least, most, 0, label + ".bias", "")
        return self._run(x, weight, bias)

    def _run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        inner = self.inner
        if isinstance(inner, nn.Linear):
            return F.linear(x, weight, bias)
        if isinstance(inner, Product):
            return inner.function(x, weight, bias)
        if isinstance(inner, nn.modules.conv._ConvTransposeNd):
            calls: dict[int, Any] = {3: F.conv_transpose1d, 4: F.conv_transpose2d}
            pads = inner.padding, inner.output_padding
            out: Tensor = calls[weight.dim()](
                x, weight, bias, inner.stride, *pads, inner.groups, inner.dilation
            )
            return out
        out = inner._conv_forward(x, weight, bias)
        return out


class Net(nn.Module):
    """Blocks one after another between an input quantizer and the last one."""

    shape: tuple[int, ...] = (4, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.q_in, self.q_out = Act(signed=True), Act(signed=True)
        self.build()

    def build(self) -> None:
        raise NotImplementedError

    def body(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.q_out(self.body(self.q_in(x)))


def observe(model: nn.Module, x: Tensor) -> None:
    """Set every scale from one batch, and labels from the modules' names."""
    for name, module in model.named_modules():
        if isinstance(module, (Act, Layer)):
            module.label = name
    acts = [m for m in model.modules() if isinstance(m, Act)]
    for flag in (True, False):
        for act in acts:
            act.observing = flag
        with torch.no_grad():
            for _ in range(2):  # what a later quantizer has seen is known to earlier layers
                model(x)


class OneLayer(Net):
    """A layer, a function, the quantizer."""

    def __init__(
        self,
        layer: nn.Module,
        shape: tuple[int, ...] = (4, 8, 8),
        bits: Sequence[int] = (8,),
        function: Callable[[Tensor], Tensor] = F.relu,
    ) -> None:
        self.shape = shape
        super().__init__()
        self.layer, self.function = Layer(layer, self.q_in, bits), function

    def build(self) -> None:
        pass

    def body(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x))


class Function(Net):
    """A function between two quantizers."""

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        shape: tuple[int, ...] = (4, 8, 8),
        bits: int = 8,
        signed: bool = True,
    ) -> None:
        self.shape, self.bits, self.signed = shape, bits, signed
        super().__init__()
        self.function = function

    def build(self) -> None:
        self.q_in = Act(self.bits, self.signed)
        self.q_out = Act(8, True, share=0.9)

    def body(self, x: Tensor) -> Tensor:
        return self.function(x)
