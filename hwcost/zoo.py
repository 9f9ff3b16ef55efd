"""Networks to compare platforms on: plain modules with random weights.

Each function returns the model and an example input, batch 1. The first four are the reference
networks of MLPerf Tiny v1 (mlcommons/tiny, ``benchmark/training``): the same multiply-accumulates
in every layer, with the padding of TensorFlow (``same``: what does not divide evenly is added
below and at the right). They return logits; the reference networks end in a softmax. The other
three have the layers of torchvision's and of a temporal convolutional network.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Example = tuple[nn.Module, Tensor]


def autoencoder() -> Example:
    """Return MLPerf Tiny's anomaly detector on 5 frames of 128 mel bands: 264,192 MACs.

    Source: ``anomaly_detection/keras_model.py``.
    """
    widths = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128)
    layers: list[nn.Module] = []
    for cin, cout in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(cin, cout, bias=False), nn.BatchNorm1d(cout), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, 640)), torch.zeros(1, 640)


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, cin: int, cout: int, stride: int, shortcut: nn.Module, same: bool) -> None:
        super().__init__()
        self.conv1 = _conv(cin, cout, 3, stride, same=same)
        self.conv2 = _conv(cout, cout, 3, relu=False)
        self.shortcut = shortcut
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return both ways' sum."""
        y: Tensor = self.relu(self.conv2(self.conv1(x)) + self.shortcut(x))
        return y


def resnet8() -> Example:
    """Return MLPerf Tiny's image classifier on 32x32 pixels: 12,501,632 MACs.

    Source: ``image_classification/keras_model.py``; its 1x1 shortcuts have no normalisation.
    """
    blocks = [
        _Residual(cin, cout, stride, shortcut, same=True)
        for cin, cout, stride, shortcut in (
            (16, 16, 1, nn.Identity()),
            (16, 32, 2, nn.Conv2d(16, 32, 1, 2)),
            (32, 64, 2, nn.Conv2d(32, 64, 1, 2)),
        )
    ]
    model = nn.Sequential(_conv(3, 16, 3), *blocks, *_classifier(64, 10))
    return model, torch.zeros(1, 3, 32, 32)


def ds_cnn() -> Example:
    """Return MLPerf Tiny's keyword spotter on 49 frames of 10 coefficients: 2,656,768 MACs.

    Source: ``keyword_spotting/keras_model.py``.
    """
    model = nn.Sequential(
        nn.ZeroPad2d((1, 1, 4, 5)),
        _conv(1, 64, (10, 4), 2, padding=0),
        nn.Dropout(0.2),
        *(_separable(64, 64, 1) for _ in range(4)),
        nn.Dropout(0.4),
        *_classifier(64, 12),
    )
    return model, torch.zeros(1, 1, 49, 10)


def mobilenet_v1() -> Example:
    """Return MLPerf Tiny's visual wake words, a quarter wide, on 96x96 pixels: 7,489,664 MACs.

    Source: ``visual_wake_words/vww_model.py``.
    """
    cin, layers = 8, [_conv(3, 8, 3, 2, same=True)]
    for cout, stride in (
        *((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2)),
        *((128, 1),) * 5,
        *((256, 2), (256, 1)),
    ):
        layers.append(_separable(cin, cout, stride))
        cin = cout
    return nn.Sequential(*layers, *_classifier(256, 2)), torch.zeros(1, 3, 96, 96)


def resnet18() -> Example:
    """Return ResNet18 on 224x224 pixels: 1,814,073,344 MACs.

    Source: He et al., Deep residual learning for image recognition, 2015, arXiv:1512.03385.
    """
    layers: list[nn.Module] = [_conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    cin = 64
    for cout, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        first = nn.Identity() if stride == 1 else _conv(cin, cout, 1, stride, relu=False)
        layers.append(_Residual(cin, cout, stride, first, same=False))
        layers.append(_Residual(cout, cout, 1, nn.Identity(), same=False))
        cin = cout
    return nn.Sequential(*layers, *_classifier(512, 1000)), torch.zeros(1, 3, 224, 224)


class _Inverted(nn.Module):
    """MobileNetV2's block: widen, filter each channel, narrow; beside a shortcut if it fits."""

    def __init__(self, cin: int, cout: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = cin * expansion
        self.shortcut = stride == 1 and cin == cout
        self.layers = nn.Sequential(
            *([_conv(cin, wide, 1, act=nn.ReLU6)] if expansion > 1 else []),
            _conv(wide, wide, 3, stride, groups=wide, act=nn.ReLU6),
            _conv(wide, cout, 1, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y: Tensor = self.layers(x)
        return x + y if self.shortcut else y


def mobilenet_v2() -> Example:
    """Return MobileNetV2 on 224x224 pixels: 300,774,272 MACs.

    Source: Sandler et al., MobileNetV2, 2018, arXiv:1801.04381, table 2.
    """
    cin, layers = 32, [_conv(3, 32, 3, 2, act=nn.ReLU6)]
    for expansion, cout, count, stride in (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    ):
        for i in range(count):
            layers.append(_Inverted(cin, cout, stride if i == 0 else 1, expansion))
            cin = cout
    layers += [_conv(320, 1280, 1, act=nn.ReLU6)]
    model = nn.Sequential(*layers, *_classifier(1280, 1000, dropout=0.2))
    return model, torch.zeros(1, 3, 224, 224)


class _Causal(nn.Module):
    """Two dilated convolutions that see no future, beside a shortcut."""

    def __init__(self, cin: int, cout: int, dilation: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *self._half(cin, cout, dilation), *self._half(cout, cout, dilation)
        )
        self.shortcut = nn.Identity() if cin == cout else nn.Conv1d(cin, cout, 1)
        self.relu = nn.ReLU()

    @staticmethod
    def _half(cin: int, cout: int, dilation: int) -> Sequence[nn.Module]:
        return (
            nn.ConstantPad1d((2 * dilation, 0), 0.0),
            nn.Conv1d(cin, cout, 3, dilation=dilation, bias=False),
            nn.BatchNorm1d(cout),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, as long as its input."""
        y: Tensor = self.relu(self.layers(x) + self.shortcut(x))
        return y


def tcn() -> Example:
    """Return a temporal convolutional network on 100 samples of a 6-axis inertial sensor.

    Source: blocks as in Bai et al., 2018, arXiv:1803.01271, with batch normalisation.
    """
    blocks = [_Causal(cin, 32, d) for cin, d in ((6, 1), (32, 2), (32, 4), (32, 8))]
    head = (nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 12))
    return nn.Sequential(*blocks, *head), torch.zeros(1, 6, 100)


def _conv(
    cin: int,
    cout: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    groups: int = 1,
    padding: int | None = None,
    same: bool = False,
    relu: bool = True,
    act: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Return a convolution with batch normalisation and an activation.

    Args:
        same: pad as TensorFlow does; it differs for strides above 1.
    """
    before: list[nn.Module] = []
    if padding is None:
        padding = kernel // 2 if isinstance(kernel, int) else 0
    if same and stride > 1 and padding:
        before, padding = [nn.ZeroPad2d((0, 1, 0, 1))], 0
    conv = nn.Conv2d(cin, cout, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(*before, conv, nn.BatchNorm2d(cout), *([act()] if relu else []))


def _separable(cin: int, cout: int, stride: int) -> nn.Sequential:
    depthwise = _conv(cin, cin, 3, stride, groups=cin, same=True)
    return nn.Sequential(*depthwise, *_conv(cin, cout, 1))


def _classifier(channels: int, classes: int, dropout: float = 0.0) -> Sequence[nn.Module]:
    extra = [nn.Dropout(dropout)] if dropout else []
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), *extra, nn.Linear(channels, classes)


ZOO: dict[str, Callable[[], Example]] = {
    "autoencoder": autoencoder,
    "resnet8": resnet8,
    "ds_cnn": ds_cnn,
    "mobilenet_v1": mobilenet_v1,
    "resnet18": resnet18,
    "mobilenet_v2": mobilenet_v2,
    "tcn": tcn,
}
