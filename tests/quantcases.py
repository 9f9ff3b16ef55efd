"""The fake-quantized nets that exports are tested on, by name."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests import quantnets as nets

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
    "leaky": lambda: nets.Function(F.leaky_relu),
    "tanh of 4 bits": lambda: nets.Function(torch.tanh, bits=4),
    "sqrt of 2 bits": lambda: nets.Function(torch.sqrt, bits=2, signed=False),
    "sliced": lambda: nets.Function(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)[:, :, 1:]),
    "stacked": lambda: nets.Function(lambda x: torch.stack(x.unbind(1)[::2], 1).sum(1)),
    "in place": lambda: nets.OneLayer(nn.Conv2d(4, 6, 3), function=lambda x: x.mul_(0.5).relu_()),
    "residual": nets.Residual,
    "shared scale": nets.SharedScale,
    "concat": nets.Concat,
    "gate": nets.Gate,
    "tables": nets.Tables,
    "norm": nets.Normed,
    "shared": nets.Shared,
    "shared layer": nets.SharedLayer,
    "tokens": nets.Tokens,
    "pools": nets.Pools,
}


def made(name: str) -> tuple[nets.Net, Tensor]:
    torch.manual_seed(len(name))
    net = NETS[name]().eval()
    x = torch.randn(16, *net.shape)
    nets.observe(net, x)
    return net, x
