"""Networks to compare platforms on: plain modules with random weights.

Each function returns the model and an example input, batch 1. The first four are the reference
networks of MLPerf Tiny v1 (mlcommons/tiny, ``benchmark/training``): the same multiply-accumulates
in every layer, with TensorFlow's ``same`` padding (where it does not divide evenly, more is added
below and at the right). They return logits; the reference networks end in a softmax.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

Example = tuple[nn.Module, Tensor]


def autoencoder() -> Example:
    """Return MLPerf Tiny's anomaly detector on 5 frames of 128 mel bands: 264,192 MACs.

    Source: ``anomaly_detection/keras_model.py``.
    """
    widths = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128)
    layers = [
        _named(linear=nn.Linear(cin, cout, bias=False), bn=nn.BatchNorm1d(cout), relu=nn.ReLU())
        for cin, cout in pairwise(widths)
    ]
    return _named(layers=nn.Sequential(*layers), out=nn.Linear(128, 640)), torch.zeros(1, 640)


def resnet8() -> Example:
    """Return MLPerf Tiny's image classifier on 32x32 pixels: 12,501,632 MACs.

    Source: ``image_classification/keras_model.py``; its 1x1 shortcuts have no normalisation.
    """
    blocks = [
        _Residual(16, 16, 1, nn.Identity(), same=True),
        _Residual(16, 32, 2, nn.Conv2d(16, 32, 1, 2), same=True),
        _Residual(32, 64, 2, nn.Conv2d(32, 64, 1, 2), same=True),
    ]
    return _network(_conv(3, 16, 3), blocks, 64, 10), torch.zeros(1, 3, 32, 32)


def ds_cnn() -> Example:
    """Return MLPerf Tiny's keyword spotter on 49 frames of 10 coefficients: 2,656,768 MACs.

    Source: ``keyword_spotting/keras_model.py``.
    """
    conv = _conv(1, 64, (10, 4), 2)
    stem = _named(pad=nn.ZeroPad2d((1, 1, 4, 5)), conv=conv, dropout=nn.Dropout(0.2))
    blocks = [_separable(64, 64, 1) for _ in range(4)]
    return _network(stem, blocks, 64, 12, dropout=0.4), torch.zeros(1, 1, 49, 10)


def mobilenet_v1() -> Example:
    """Return MLPerf Tiny's visual wake words, a quarter wide, on 96x96 pixels: 7,489,664 MACs.

    Source: ``visual_wake_words/vww_model.py``.
    """
    cin, blocks = 8, []
    for cout, stride in (
        *((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2)),
        *((128, 1),) * 5,
        *((256, 2), (256, 1)),
    ):
        blocks.append(_separable(cin, cout, stride))
        cin = cout
    stem = _conv(3, 8, 3, 2, same=True)
    return _network(stem, blocks, 256, 2), torch.zeros(1, 3, 96, 96)


def resnet18() -> Example:
    """Return ResNet18 on 224x224 pixels: 1,814,073,344 MACs.

    Source: He et al., Deep residual learning for image recognition, 2015, arXiv:1512.03385.
    """
    cin, blocks = 64, []
    for cout, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        first = nn.Identity() if stride == 1 else _conv(cin, cout, 1, stride, act=None)
        blocks.append(_Residual(cin, cout, stride, first))
        blocks.append(_Residual(cout, cout, 1, nn.Identity()))
        cin = cout
    stem = _named(**_conv(3, 64, 7, 2)._modules, pool=nn.MaxPool2d(3, 2, 1))
    return _network(stem, blocks, 512, 1000), torch.zeros(1, 3, 224, 224)


def mobilenet_v2() -> Example:
    """Return MobileNetV2 on 224x224 pixels: 300,774,272 MACs.

    Source: Sandler et al., MobileNetV2, 2018, arXiv:1801.04381, table 2.
    """
    cin = 32
    blocks: list[nn.Module] = []
    for expansion, cout, count, stride in (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    ):
        for i in range(count):
            blocks.append(_Inverted(cin, cout, stride if i == 0 else 1, expansion))
            cin = cout
    blocks.append(_conv(320, 1280, 1, act=nn.ReLU6))
    stem = _conv(3, 32, 3, 2, act=nn.ReLU6)
    return _network(stem, blocks, 1280, 1000, dropout=0.2), torch.zeros(1, 3, 224, 224)


def tcn() -> Example:
    """Return a temporal convolutional network on 100 samples of a 6-axis inertial sensor.

    Source: blocks as in Bai et al., 2018, arXiv:1803.01271, with batch normalisation.
    """
    model = _named(
        blocks=nn.Sequential(*(_Causal(6 if d == 1 else 32, 32, d) for d in (1, 2, 4, 8))),
        pool=nn.AdaptiveAvgPool1d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(32, 12),
    )
    return model, torch.zeros(1, 6, 100)


ZOO: dict[str, Callable[[], Example]] = {
    "autoencoder": autoencoder,
    "resnet8": resnet8,
    "ds_cnn": ds_cnn,
    "mobilenet_v1": mobilenet_v1,
    "resnet18": resnet18,
    "mobilenet_v2": mobilenet_v2,
    "tcn": tcn,
}


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(
        self, cin: int, cout: int, stride: int, shortcut: nn.Module, same: bool = False
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _conv(cin, cout, 3, stride, same=same), _conv(cout, cout, 3, act=None)
        )
        self.shortcut = shortcut
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return _tensor(self.relu(self.layers(x) + self.shortcut(x)))


class _Inverted(nn.Module):
    """MobileNetV2's block: widen, filter each channel, narrow; beside a shortcut if it fits."""

    def __init__(self, cin: int, cout: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = cin * expansion
        widen = {"widen": _conv(cin, wide, 1, act=nn.ReLU6)} if expansion > 1 else {}
        self.layers = _named(
            **widen,
            depthwise=_conv(wide, wide, 3, stride, groups=wide, act=nn.ReLU6),
            narrow=_conv(wide, cout, 1, act=None),
        )
        self.shortcut = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        y = _tensor(self.layers(x))
        return x + y if self.shortcut else y


class _Causal(nn.Module):
    """Two dilated convolutions that see no future, beside a shortcut."""

    def __init__(self, cin: int, cout: int, dilation: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _causal_conv(cin, cout, dilation), _causal_conv(cout, cout, dilation)
        )
        self.shortcut = nn.Identity() if cin == cout else nn.Conv1d(cin, cout, 1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return _tensor(self.relu(self.layers(x) + self.shortcut(x)))


def _causal_conv(cin: int, cout: int, dilation: int) -> nn.Sequential:
    return _named(
        pad=nn.ConstantPad1d((2 * dilation, 0), 0.0),
        conv=nn.Conv1d(cin, cout, 3, dilation=dilation, bias=False),
        bn=nn.BatchNorm1d(cout),
        relu=nn.ReLU(),
    )


def _conv(
    cin: int,
    cout: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    groups: int = 1,
    same: bool = False,
    act: type[nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Return a convolution with batch normalisation and an activation.

    Args:
        kernel: a square kernel is padded by half its size, another not at all.
        same: pad as TensorFlow does; it differs for strides above 1.
    """
    layers: dict[str, nn.Module] = {}
    padding = kernel // 2 if isinstance(kernel, int) else 0
    if same and stride > 1:
        layers["pad"], padding = nn.ZeroPad2d((0, 1, 0, 1)), 0
    layers["conv"] = nn.Conv2d(cin, cout, kernel, stride, padding, groups=groups, bias=False)
    layers["bn"] = nn.BatchNorm2d(cout)
    if act is not None:
        layers["relu"] = act()
    return _named(**layers)


def _separable(cin: int, cout: int, stride: int) -> nn.Sequential:
    depthwise = _conv(cin, cin, 3, stride, groups=cin, same=True)
    return _named(depthwise=depthwise, pointwise=_conv(cin, cout, 1))


def _network(
    stem: nn.Module, blocks: Sequence[nn.Module], channels: int, classes: int, dropout: float = 0
) -> nn.Sequential:
    """Return a classifier of images: the mean of each channel goes into a linear layer."""
    layers = {"stem": stem, "blocks": nn.Sequential(*blocks), "pool": nn.AdaptiveAvgPool2d(1)}
    layers["flatten"] = nn.Flatten()
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    return _named(**layers, fc=nn.Linear(channels, classes))


def _named(**modules: nn.Module | None) -> nn.Sequential:
    return nn.Sequential(OrderedDict((k, m) for k, m in modules.items() if m is not None))


def _tensor(value: object) -> Tensor:
    """Return what a module returned, known as a tensor: calls of modules are not typed."""
    assert isinstance(value, Tensor)
    return value
