"""The fake-quantized nets that exports are tested on, by name."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests import quantnets as nets


class Residual(nets.Net):
    """Two branches of different scales, one of them cut off at 6, are added."""

    def build(self) -> None:
        self.one = nets.Layer(nn.Conv2d(4, 6, 3, padding=1), self.q_in)
        self.two = nets.Layer(nn.Conv2d(4, 6, 1, bias=False), self.q_in, (2, 4, 8))
        self.q_one, self.q_two = nets.Act(), nets.Act(4, True)
        self.q_sum = nets.Act()
        self.last = nets.Layer(nn.Conv2d(6, 3, 3), self.q_sum, (4, 8))

    def body(self, x: Tensor) -> Tensor:
        branch = self.q_one(F.relu6(self.one(x)))
        return self.last(self.q_sum(F.relu(branch + self.q_two(self.two(x)))))


class SharedScale(nets.Net):
    """An add of tensors on one grid, as exports have them."""

    def build(self) -> None:
        self.one = nets.Layer(nn.Conv2d(4, 6, 3, padding=1), self.q_in)
        self.two = nets.Layer(nn.Conv2d(4, 6, 1), self.q_in)
        self.q_both = nets.Act(8, True)

    def body(self, x: Tensor) -> Tensor:
        return self.q_both(self.one(x)) + self.q_both(self.two(x))


class Concat(nets.Net):
    """Tensors of two scales side by side, pooled, shuffled, flattened."""

    def build(self) -> None:
        self.one = nets.Layer(nn.Conv2d(4, 6, 3, padding=1), self.q_in)
        self.q_one, self.q_cat = nets.Act(), nets.Act(6, True)
        self.head = nets.Layer(nn.Linear(10 * 4, 5), self.q_cat, (8, 4))

    def body(self, x: Tensor) -> Tensor:
        both = torch.cat([self.q_one(F.relu(self.one(x))), x], dim=1)
        both = F.channel_shuffle(F.max_pool2d(self.q_cat(both), 4, 4), 2)
        return self.head(both.view(both.shape[0], -1))


class Gate(nets.Net):
    """Squeeze and excitation: a product of two tensors, one from a table."""

    def build(self) -> None:
        self.q_mean, self.q_mid, self.q_pre, self.q_gate = (
            nets.Act(8, True),
            nets.Act(),
            nets.Act(8, True),
            nets.Act(),
        )
        self.down = nets.Layer(nn.Conv2d(4, 2, 1), self.q_mean)
        self.up = nets.Layer(nn.Conv2d(2, 4, 1), self.q_mid)

    def body(self, x: Tensor) -> Tensor:
        squeezed = self.q_mean(x.mean((2, 3), keepdim=True))
        gate = self.q_pre(self.up(self.q_mid(F.relu(self.down(squeezed)))))
        return x * self.q_gate(torch.sigmoid(gate))


class Tables(nets.Net):
    """Functions of few bits, some of several operators."""

    def build(self) -> None:
        self.one, self.two = nets.Act(8, True), nets.Act(8, True)
        self.three, self.four = nets.Act(8, True), nets.Act(8, True)

    def body(self, x: Tensor) -> Tensor:
        x = self.one(F.gelu(x))
        x = self.two(x * F.relu6(x + 3) / 6)
        x = self.three(x * torch.sigmoid(x))
        return self.four(F.hardswish(x)).exp() - 1


class Normed(nets.Net):
    """A batch norm that stands alone, behind a sum."""

    def build(self) -> None:
        self.layer = nets.Layer(nn.Conv2d(4, 4, 3, padding=1), self.q_in)
        self.q = nets.Act(8, True)
        self.norm = nn.BatchNorm2d(4)
        for tensor in self.norm.state_dict().values():
            if tensor.dim():
                nn.init.uniform_(tensor, 0.5, 1.5)

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(x + self.q(self.layer(x))))


class Shared(nets.Net):
    """One layer that is called twice."""

    def build(self) -> None:
        self.q = nets.Act(8, True)
        self.layer = nets.Layer(nn.Conv2d(4, 4, 3, padding=1), self.q)

    def body(self, x: Tensor) -> Tensor:
        x = self.q(x)
        return self.q(self.layer(self.q(self.layer(x))))


class SharedLayer(nets.Net):
    """One layer that is called twice, on inputs of different scales: its bias fits one."""

    def build(self) -> None:
        self.layer = nets.Layer(nn.Conv2d(4, 4, 3, padding=1), self.q_in)
        self.q = nets.Act(8, False, share=0.7)

    def body(self, x: Tensor) -> Tensor:
        return self.layer(self.q(F.relu(self.layer(x))))


class Tokens(nets.Net):
    """Tokens: a linear layer, a product of two tensors, a mean."""

    shape = (4, 8, 8)

    def build(self) -> None:
        self.q, self.k, self.q_mix = nets.Act(8, True), nets.Act(8, True), nets.Act(8, True)
        self.one = nets.Layer(nn.Linear(4, 6), self.q_in, (4, 8))
        self.two = nets.Layer(nn.Linear(4, 6, bias=False), self.q_in)
        self.place = nn.Parameter(torch.randn(1, 64, 6))
        self.q_place = nets.Act(8, True)

    def body(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        one = self.q(self.one(tokens) + self.q_place(self.place))
        two = self.k(self.two(tokens))
        return self.q_mix(one @ two.transpose(1, 2)).mean(dim=1)


class Pools(nets.Net):
    """Every pool, and what moves numbers."""

    def build(self) -> None:
        self.q = nets.Act(8, True)

    def body(self, x: Tensor) -> Tensor:
        up = F.interpolate(F.avg_pool2d(x, 3, 2, 1), scale_factor=2.0)
        edge = F.pad(F.pad(up, (1, 1, 1, 1), mode="reflect"), (0, 1, 1, 0))
        small = self.q(F.adaptive_avg_pool2d(edge, (3, 5)))
        few = F.avg_pool2d(small, 2, 1, 1, count_include_pad=False)
        return torch.cat([few[:, :2], few.flip(1)[:, 1:]], 1)


def product(function: Callable[..., Tensor], shape: tuple[int, ...]) -> nets.Net:
    return nets.OneLayer(nets.Product(12, 7, function), shape, bits=(8, 4))


NETS: dict[str, Callable[[], nets.Net]] = {
    "conv2d": lambda: nets.OneLayer(nn.Conv2d(4, 6, 3)),
    "strided": lambda: nets.OneLayer(nn.Conv2d(4, 6, 3, stride=2, padding=1), bits=(2, 4, 8)),
    "dilated": lambda: nets.OneLayer(nn.Conv2d(4, 6, 3, dilation=2)),
    "grouped": lambda: nets.OneLayer(nn.Conv2d(4, 6, 3, groups=2, bias=False)),
    "depthwise": lambda: nets.OneLayer(nn.Conv2d(4, 4, 3, groups=4, padding="same"), bits=(8, 4)),
    "reflected": lambda: nets.OneLayer(nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect")),
    "conv1d": lambda: nets.OneLayer(nn.Conv1d(4, 6, 3), (4, 16)),
    "conv1d pooled": lambda: nets.OneLayer(
        nn.Conv1d(4, 6, 3), (4, 16), function=lambda x: F.max_pool1d(F.relu6(x), 2)
    ),
    "conv3d": lambda: nets.OneLayer(nn.Conv3d(2, 3, 2), (2, 4, 4, 4)),
    "transposed": lambda: nets.OneLayer(nn.ConvTranspose2d(4, 6, 3, 2, 1, 1), bits=(8, 2)),
    "transposed1d": lambda: nets.OneLayer(nn.ConvTranspose1d(4, 6, 2, 2), (4, 8)),
    "transposed groups": lambda: nets.OneLayer(nn.ConvTranspose2d(4, 6, 2, 2, groups=2)),
    "linear": lambda: nets.OneLayer(nn.Linear(12, 7), (12,)),
    "tokens linear": lambda: nets.OneLayer(nn.Linear(12, 7), (5, 12), (4, 8)),
    "addmm": lambda: product(lambda x, w, b: torch.addmm(b, x, w), (12,)),
    "product": lambda: product(lambda x, w, b: x @ w + b, (12,)),
    "tokens product": lambda: product(lambda x, w, b: x @ w + b, (5, 12)),
    "turned product": lambda: product(lambda x, w, b: F.linear(x, w.t(), b), (12,)),
    "einsum": lambda: product(lambda x, w, b: torch.einsum("bti,io->bto", x, w) + b, (5, 12)),
    "averaged": lambda: nets.OneLayer(
        nn.Conv2d(4, 6, 3), function=lambda x: F.adaptive_avg_pool2d(F.relu(x), 1).flatten(1)
    ),
    "permuted": lambda: nets.OneLayer(
        nn.Conv2d(4, 6, 3), function=lambda x: x.permute(0, 2, 3, 1).reshape(x.shape[0], 36, -1)
    ),
    "pixels": lambda: nets.OneLayer(nn.Conv2d(4, 8, 3), function=lambda x: F.pixel_shuffle(x, 2)),
    "upsampled": lambda: nets.OneLayer(
        nn.Conv2d(4, 6, 3), function=lambda x: F.interpolate(x, scale_factor=2.0)
    ),
    "affine": lambda: nets.Function(lambda x: 1 - x * -0.3 / 2),
    "prelu": lambda: nets.Function(lambda x: F.prelu(x, torch.full((1,), 0.2))),
    "prelu by channel": lambda: nets.Function(lambda x: F.prelu(x, torch.linspace(-1, 1, 4))),
    "largest": lambda: nets.OneLayer(nn.Conv2d(4, 6, 3), function=lambda x: x.amax((2, 3))),
    "class token": lambda: nets.Function(
        lambda x: torch.cat([torch.linspace(0, 1, 8).expand(x.shape[0], 4, 1, 8), x], 2)
    ),
    "leaky": lambda: nets.Function(F.leaky_relu),
    "tanh of 4 bits": lambda: nets.Function(torch.tanh, bits=4),
    "sqrt of 2 bits": lambda: nets.Function(torch.sqrt, bits=2, signed=False),
    "sliced": lambda: nets.Function(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)[:, :, 1:]),
    "stacked": lambda: nets.Function(lambda x: torch.stack(x.unbind(1)[::2], 1).sum(1)),
    "in place": lambda: nets.OneLayer(nn.Conv2d(4, 6, 3), function=lambda x: x.mul_(0.5).relu_()),
    "residual": Residual,
    "shared scale": SharedScale,
    "concat": Concat,
    "gate": Gate,
    "tables": Tables,
    "norm": Normed,
    "shared": Shared,
    "shared layer": SharedLayer,
    "tokens": Tokens,
    "pools": Pools,
}


def made(name: str) -> tuple[nets.Net, Tensor]:
    torch.manual_seed(len(name))
    net = NETS[name]().eval()
    x = torch.randn(16, *net.shape)
    nets.observe(net, x)
    return net, x
