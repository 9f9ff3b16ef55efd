"""Convolutional networks: what ties the channels of one layer to those of another."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.channel_nets_base import Net, Nets, block, conv, head, image, of

NETS = Nets()


@NETS.net("0.0:8 2.0:12")
def plain() -> Net:
    return nn.Sequential(block(3, 8), nn.MaxPool2d(2), block(8, 12), head(12)), (image(),)


@NETS.net("stem.0:8 a.0:6 short:10")
def residual() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.stem(x)
        x = F.relu(x + m.b(m.a(x)))
        return m.head(F.relu(m.short(x) + m.c(x)))

    parts = {"stem": block(3, 8), "a": block(8, 6), "b": conv(6, 8)}
    return of(forward, image(), **parts, short=conv(8, 10, 1), c=block(8, 10), head=head(10))


@NETS.net("stem:8 a:6")
def pre_activation() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.stem(x)
        y = m.b(F.relu(m.n2(m.a(F.relu(m.n1(x))))))
        return m.head(F.relu(m.n3(x.sub(y))))

    parts = {"n1": nn.BatchNorm2d(8), "n2": nn.BatchNorm2d(6), "n3": nn.BatchNorm2d(8)}
    return of(forward, image(), stem=conv(3, 8), a=conv(8, 6), b=conv(6, 8), **parts, head=head(8))


@NETS.net("0.0:8 2.0:12")
def depthwise() -> Net:
    return nn.Sequential(block(3, 8), block(8, 8, groups=8), block(8, 12, 1), head(12)), (image(),)


@NETS.net("0.0:8 2.0:12")
def depth_multiplier() -> Net:
    layers = block(3, 8), block(8, 24, groups=8), block(24, 12, 1)
    return nn.Sequential(*layers, head(12)), (image(),)


@NETS.net("0.0:3 2:6")
def grouped() -> Net:
    layers = block(3, 12), block(12, 18, groups=3), conv(18, 6, 1)
    return nn.Sequential(*layers, head(6)), (image(),)


@NETS.net("0:4 1:4 4:6")
def grouped_shuffled() -> Net:
    layers = conv(3, 12, 1), conv(12, 12, 1, groups=3), nn.ChannelShuffle(3)
    return nn.Sequential(*layers, conv(12, 12, groups=12), conv(12, 6, 1), head(6)), (image(),)


@NETS.net("stem.0:8 a.0:5 b.0:7 last.0:6")
def concatenated() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.stem(x)
        return m.head(m.last(torch.cat([m.a(x), x, m.b(x)], 1)))

    parts = {"stem": block(3, 8), "a": block(8, 5), "b": block(8, 7)}
    return of(forward, image(), **parts, last=block(20, 6), head=head(6))


@NETS.net("whole.0:12")
def concatenated_onto_a_residual() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        return m.head(m.whole(x) + torch.cat([m.a(x), m.b(x)], 1))

    parts = {"whole": block(3, 12), "a": block(3, 5), "b": block(3, 7)}
    return of(forward, image(), **parts, head=head(12))


@NETS.net("stem:8 layers.0.2:4 layers.1.2:4 layers.2.2:4")
def dense() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.stem(x)
        for layer in m.layers:
            x = torch.cat([x, layer(x)], 1)
        return m.head(m.norm(x))

    layers = nn.ModuleList(
        nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(), conv(c, 4)) for c in (8, 12, 16)
    )
    return of(
        forward, image(), stem=conv(3, 8), layers=layers, norm=nn.BatchNorm2d(20), head=head(20)
    )


@NETS.net("a.0:8 b.0:8")
def inputs_concatenated() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        return m.head(m.b(torch.cat([x, m.a(x)], 1)))

    return of(forward, image(), a=block(3, 8), b=block(11, 8), head=head(8))


@NETS.net("stem.0:8 down:4")
def squeeze_excite() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.stem(x)
        gate = torch.sigmoid(m.up(F.relu(m.down(x.mean((2, 3), keepdim=True)))))
        return m.head(x * gate)

    return of(
        forward, image(), stem=block(3, 8), down=conv(8, 4, 1), up=conv(4, 8, 1), head=head(8)
    )


@NETS.net("stem.0:8 gate.0:4")
def gated_by_linear() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.stem(x)
        b, c, _, _ = x.shape
        gate = m.gate(F.adaptive_avg_pool2d(x, 1).view(b, c)).view(b, c, 1, 1)
        return m.head(torch.multiply(x, gate.expand_as(x)))

    gate = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8), nn.Hardsigmoid())
    return of(forward, image(), stem=block(3, 8), gate=gate, head=head(8))


@NETS.net("stem.0:8")
def spatial_gate() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.stem(x)
        return m.head(x * torch.sigmoid(m.gate(x)))

    return of(forward, image(), stem=block(3, 8), gate=conv(8, 1), head=head(8))


@NETS.net("0.0:8 1:2")
def transposed() -> Net:
    layers = block(3, 8), nn.ConvTranspose2d(8, 10, 2, 2), nn.BatchNorm2d(10), nn.ReLU()
    deep = nn.ConvTranspose2d(10, 20, 2, 2, groups=10), nn.ConvTranspose2d(20, 12, 2, groups=4)
    return nn.Sequential(*layers, *deep, head(12)), (image(),)


@NETS.net("a.0:8 b.0:12 up:6 last.0:7")
def unet() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        a = m.a(x)
        b = m.b(F.max_pool2d(a, 2))
        up = F.interpolate(m.up(b), size=a.shape[2:], mode="bilinear", align_corners=False)
        return m.out(m.last(torch.cat([up, a], 1)))

    parts = {"a": block(3, 8), "b": block(8, 12), "up": nn.ConvTranspose2d(12, 6, 2, 2)}
    return of(forward, image(), **parts, last=block(14, 7), out=conv(7, 2, 1))
