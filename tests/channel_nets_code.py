"""Networks whose code views, divides or computes with channels itself."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from tests.channel_nets_base import Net, Nets, block, conv, head, image, of
from tests.models import Function

NETS = Nets()


@NETS.net("stem.0:8")
def in_place() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = F.relu_(m.stem(x))
        y = m.a(x)
        y += x
        y[:, :, ::2].mul_(2)
        return m.head(y.clamp_(0, 6))

    return of(forward, image(), stem=block(3, 8), a=block(8, 8), head=head(8))


@NETS.net("stem.0:6 last.0:8")
def split_and_shuffled() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.stem(x)
        left, right = x.chunk(2, 1)
        x = torch.cat([left, m.branch(right)], 1)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, -1, h, w)
        return m.head(m.last(x))

    return of(
        forward, image(), stem=block(3, 12), branch=block(6, 6), last=block(12, 8), head=head(8)
    )


@NETS.net("stem.0:6")
def halves_by_size() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.stem(x)
        half = x.shape[1] // 2
        return m.head(x[:, :half] * x[:, half:].tanh())

    return of(forward, image(), stem=block(3, 12), head=head(6))


@NETS.net("first.0:8")
def halves_by_number() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.stem(m.first(x))
        return m.head(x[:, :6] * x[:, 6:].tanh())

    return of(forward, image(), first=block(3, 8), stem=block(8, 12), head=head(6))


@NETS.net("a.0:8 c.0:7")
def one_channel_selected() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.b(m.a(x))
        return m.head(x[:, 0:1] + m.c(x)), x[:, 3].mean()

    return of(forward, image(), a=block(3, 8), b=block(8, 6), c=block(6, 7), head=head(7))


@NETS.net("0.0:6 3:10")
def flattened() -> Net:
    layers = block(3, 6), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(24, 10), nn.ReLU()
    return nn.Sequential(*layers, nn.BatchNorm1d(10), nn.Linear(10, 4)), (image(),)


@NETS.net("a:6")
def viewed_with_minus_one() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        return m.out(F.relu(m.a(x)).view(x.size(0), -1))

    return of(forward, image(), a=conv(3, 6), out=nn.Linear(384, 4))


@NETS.net("a.0:5")
def viewed_with_a_number() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        return m.out(F.relu(m.b(m.a(x))).view(-1, 384))

    return of(forward, image(), a=block(3, 5), b=conv(5, 6), out=nn.Linear(384, 4))


@NETS.net("stem.0:8")
def called_twice() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.stem(x)
        return m.head(m.a(F.relu(m.a(x))))

    return of(forward, image(), stem=block(3, 8), a=conv(8, 8), head=head(8))


@NETS.net("a:10")
def autoencoder_with_tied_weights() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        return F.linear(F.relu(m.a(x)), m.a.weight.t())

    return of(forward, torch.randn(3, 7), a=nn.Linear(7, 10))


@NETS.net("w:8 matrix:10")
def functional_weights() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = F.relu(F.conv2d(x, m.w, m.b, padding=1))
        x = F.batch_norm(x, m.mean, m.var, m.gain)
        x = F.prelu(x, m.slope).mean((2, 3))
        return F.relu(x @ m.matrix) @ m.out.t() + m.shift

    shapes = {"w": (8, 3, 3, 3), "b": (8,), "gain": (8,), "slope": (8,), "matrix": (8, 10)}
    more = {"out": (4, 10), "shift": (4,)}
    model = Function(
        forward, **{n: nn.Parameter(torch.randn(s)) for n, s in (shapes | more).items()}
    )
    model.register_buffer("mean", torch.randn(8))
    model.register_buffer("var", torch.rand(8) + 1)
    return model, (image(),)


@NETS.net("0:8 2:10 4:6")
def normalised_weights() -> Net:
    layers = conv(3, 8), nn.ReLU(), weight_norm(conv(8, 10)), nn.ReLU(), conv(10, 6)
    return nn.Sequential(*layers, head(6)), (image(),)


@NETS.net("4:6")
def bounded_weights() -> Net:
    layers = conv(3, 8), nn.ReLU(), spectral_norm(conv(8, 10)), nn.ReLU(), conv(10, 6)
    return nn.Sequential(*layers, head(6)), (image(),)


@NETS.net("a.0:6")
def branch_on_data() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.stem(x)
        return m.head(m.a(x) if x.sum() > -1e9 else m.b(x))

    return of(forward, image(), stem=block(3, 8), a=block(8, 6), b=block(8, 6), head=head(6))


@NETS.net("stem.0:8 a.0:6")
def dict_output() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.stem(x)
        return {"class": m.head(m.a(x)), "map": [m.b(x)]}

    return of(forward, image(), stem=block(3, 8), a=block(8, 6), b=conv(8, 2), head=head(6))


@NETS.net("a.0:8")
def mean_over_channels() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.b(m.a(x))
        return m.head(x * x.mean(1, keepdim=True))

    return of(forward, image(), a=block(3, 8), b=block(8, 6), head=head(6))


@NETS.net("stem.0:8")
def padded_shortcut() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.stem(x)
        return m.head(m.a(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))

    return of(forward, image(), stem=block(3, 8), a=block(8, 12, stride=2), head=head(12))


@NETS.net("0.0:8 1:6 3:5 5:6")
def pixel_shuffled() -> Net:
    layers = block(3, 8), conv(8, 24), nn.PixelShuffle(2), conv(6, 5), nn.PixelUnshuffle(4)
    return nn.Sequential(*layers, conv(80, 6), head(6)), (image(),)


@NETS.net("a:8 b:6")
def maxout_and_glu() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = F.glu(m.a(x), 1)
        x = m.b(x).view(len(x), -1, 2, *x.shape[2:]).amax(2)
        return m.head(torch.stack([x, m.c(x)]).sum(0))

    return of(forward, image(), a=conv(3, 16), b=conv(8, 12), c=conv(6, 6), head=head(6))


@NETS.net("0:6")
def three_dimensions() -> Net:
    layers = nn.Conv3d(2, 6, 3), nn.BatchNorm3d(6), nn.ReLU(), nn.MaxPool3d(2), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(6, 3)), (torch.randn(2, 2, 4, 4, 4),)


@NETS.net("stem.0:8")
def channels_as_samples() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.stem(x)
        b, c, h, w = x.shape
        y = m.shared(x.reshape(b * c, 1, h, w)).view(b, c, 2, h, w).amax(2)
        return m.head(x + y)

    return of(forward, image(), stem=block(3, 8), shared=conv(1, 2), head=head(8))


@NETS.net("a.0:8")
def scaled_by_width() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.b(m.a(x))
        return m.head(x / x.shape[1] ** 0.5)

    return of(forward, image(), a=block(3, 8), b=block(8, 6), head=head(6))


@NETS.net("a.0:8")
def multiplied_by_a_buffer() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        return m.head(m.a(x) * m.gain.view(1, -1, 1, 1) + m.more[None, :, None, None])

    model = Function(forward, a=block(3, 8), head=head(8))
    model.register_buffer("gain", torch.rand(8))
    model.register_buffer("more", torch.rand(8), persistent=False)
    return model, (image(),)


@NETS.net("a.0:6")
def windows() -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = F.unfold(m.a(x), 2, stride=2)
        return m.b(x.transpose(1, 2)).mean(1)

    return of(forward, image(), a=block(3, 6), b=nn.Linear(24, 5))
