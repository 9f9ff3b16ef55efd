"""Search in a convolutional network that reads glyphs of fonts it has not seen."""

from dataclasses import replace

from data_glyphs import CLASSES, load_glyphs
from running import main
from samples import Data
from searching import Plan, Task
from torch import nn


def block(cin: int, cout: int, kernel: int, stride: int) -> list[nn.Module]:
    """Return the layers of a convolution."""
    conv = nn.Conv2d(cin, cout, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(cout), nn.ReLU()]


def cnn() -> nn.Module:
    """Return the network to search in: 28x28 pixels, then 14x14, 7x7 and 4x4, two dense layers."""
    layers = block(1, 16, 5, 2)
    for cin, cout, stride in ((16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)):
        layers += block(cin, cout, 3, stride)
    layers += [nn.Flatten(), nn.Linear(16 * 64, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(0.3), nn.Linear(128, len(CLASSES)))


def few_glyphs() -> Data:
    """Return three eighths of the glyphs in training."""
    return load_glyphs(copies=6, test_copies=4)


TASK = Task(
    load=load_glyphs,
    nets={"CNN": cnn},
    costs={"latency": "gap8_compute:latency", "params": "counts:params"},
    targets={"latency": "25 %", "params": "20 %"},
    strengths=(0.5, 1.0, 1.5, 2.0, 4.0),
    plan=Plan(8, 8, 8, nas_lr=3e-3),
)
FAST = replace(TASK, load=few_glyphs, strengths=(1.0, 3.0), plan=Plan(8, 8, 8, nas_lr=5e-3))

if __name__ == "__main__":
    main(TASK, FAST)
