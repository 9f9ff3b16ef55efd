"""Single ops of every kind, with sizes that pull the numbers of a descriptor apart."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Example = tuple[nn.Module, Any]

#: Bytes that an op of this magnitude reads at most.
_MAGNITUDES = {"small": 1 << 18, "medium": 1 << 22, "large": 1 << 40}


class Function(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


class Apart(nn.Module):
    """Modules that have nothing to do with each other, each with an input of its own.

    An input is copied first: it lies in the caches as if the op before had written it.
    """

    def __init__(self, modules: Sequence[nn.Module], counts: Sequence[int]) -> None:
        super().__init__()
        self.ops = nn.ModuleList(modules)
        self.counts = tuple(counts)

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        rest = iter(inputs)
        return [
            op(*(next(rest).clone() for _ in range(count)))
            for op, count in zip(self.ops, self.counts, strict=True)
        ]


def grid() -> dict[str, Example]:
    """Return name -> ops of one kind and of many sizes that run in turn, and inputs; batch 1.

    Small ones show what a call costs, large ones rates; with few and many channels, what is
    paid once for all of them. Those of one magnitude and kind are together: most networks have
    ops of one magnitude, of which the caches then hold all or little.
    """
    groups: dict[str, list[Example]] = {}
    for example in (*_convolutions(), *_matrices(), *_flat()):
        groups.setdefault(_name(*example), []).append(example)
    return {name: _in_turn(examples) for name, examples in groups.items()}


def _name(module: nn.Module, inputs: Tensor | tuple[Tensor, ...]) -> str:
    """What an op is called: its size, its function."""
    tensors = (*module.parameters(), *(inputs if isinstance(inputs, tuple) else (inputs,)))
    size = sum(t.numel() * t.element_size() for t in tensors)
    magnitude = next(name for name, most in _MAGNITUDES.items() if size < most)
    function = getattr(module, "function", type(module)).__name__.strip("_").lower()
    depthwise = "depthwise " * (getattr(module, "groups", 1) > 1)
    return f"{magnitude} {depthwise}{function}"


def _in_turn(examples: Sequence[Example]) -> Example:
    inputs = [x if isinstance(x, tuple) else (x,) for _, x in examples]
    turn = Apart([module for module, _ in examples], [len(x) for x in inputs])
    return turn, tuple(x for each in inputs for x in each)


def _conv(cin: int, cout: int, k: int, size: int, stride: int = 1, groups: int = 1) -> Example:
    layer = nn.Conv2d(cin, cout, k, stride, k // 2, groups=groups, bias=False)
    return layer, torch.rand(1, cin, size, size)


def _convolutions() -> Iterator[Example]:
    """Dense, pointwise and depthwise ones on small and large maps, with few and many channels."""
    for cin, cout, size in ((3, 24, 128), (3, 48, 192), (1, 16, 28), (4, 20, 64)):
        yield _conv(cin, cout, 3, size, stride=2)
    for cin, cout, size in ((8, 8, 8), (20, 40, 16), (24, 24, 56), (40, 80, 40), (96, 96, 20)):
        yield _conv(cin, cout, 3, size)
        yield _conv(cin, 2 * cout, 1, size)
    for cin, cout, size in ((192, 192, 12), (320, 320, 7), (384, 384, 10)):
        yield _conv(cin, cout, 3, size)
        yield _conv(cin, cout, 1, size, stride=2)
    yield _conv(48, 48, 5, 28)
    for cin, size in ((16, 12), (24, 64), (72, 28), (120, 28), (240, 14), (480, 7), (48, 96)):
        yield _conv(cin, cin, 3, size, groups=cin)
        yield _conv(cin, cin, 3, size, stride=2, groups=cin)
    for cin, size in ((40, 28), (144, 14)):
        yield _conv(cin, cin, 5, size, groups=cin)
    yield _conv(64, 64, 3, 28, groups=4)
    for cin, length, dilation in (
        (16, 64, 1),
        (16, 90, 2),
        (24, 256, 2),
        (40, 60, 3),
        (48, 128, 4),
    ):
        yield nn.Conv1d(cin, cin, 3, dilation=dilation, bias=False), torch.rand(1, cin, length)
    for cin, cout, size in ((16, 8, 8), (32, 16, 16), (64, 32, 28)):
        yield nn.ConvTranspose2d(cin, cout, 2, 2), torch.rand(1, cin, size, size)


def _matrices() -> Iterator[Example]:
    for cin, cout in ((24, 8), (96, 96), (384, 192), (640, 320), (768, 768), (2048, 1000)):
        yield nn.Linear(cin, cout), torch.rand(1, cin)
    for cin, cout, tokens in ((48, 48, 16), (192, 384, 49), (256, 256, 196), (384, 768, 128)):
        yield nn.Linear(cin, cout), torch.rand(1, tokens, cin)
    for heads, length, size in ((1, 16, 16), (4, 49, 32), (6, 128, 64), (3, 197, 64)):
        q, k, v = (torch.rand(1, heads, length, size) for _ in range(3))
        yield Function(F.scaled_dot_product_attention), (q, k, v)
        yield Function(torch.matmul), (q, k.transpose(-2, -1).contiguous())
    for cin, cout, steps in ((16, 16, 10), (40, 64, 50), (64, 128, 100)):
        yield nn.LSTM(cin, cout, batch_first=True), torch.rand(1, steps, cin)
        yield nn.GRU(cin, cout, batch_first=True), torch.rand(1, steps, cin)


def _flat() -> Iterator[Example]:
    for channels, size in ((8, 8), (24, 28), (48, 40), (96, 64), (40, 112)):
        x = torch.rand(1, channels, size, size)
        yield nn.BatchNorm2d(channels), x
        yield nn.ReLU(), x
        yield nn.Hardswish(), x
        yield Function(torch.add), (x, torch.rand_like(x))
        yield Function(torch.mul), (x, torch.rand_like(x))
        yield Function(_concatenated), (x, torch.rand_like(x))
        yield nn.ZeroPad2d(1), x
        yield nn.MaxPool2d(2), x
        yield nn.MaxPool2d(3, 2, 1), x
        yield nn.AdaptiveAvgPool2d(1), x
    for tokens, features in ((16, 64), (49, 192), (196, 384)):
        x = torch.rand(1, tokens, features)
        yield nn.LayerNorm(features), x
        yield nn.GELU(), x
        yield nn.Sigmoid(), x
        yield nn.Softmax(-1), x
        yield nn.Embedding(1000, features), torch.zeros(1, tokens, dtype=torch.int64)


def _concatenated(x: Tensor, y: Tensor) -> Tensor:
    return torch.cat((x, y), 1)
