"""Search in a temporal convolutional network that tells exercises from a smartwatch."""

from dataclasses import replace

from data_watch import WINDOW, load_watch
from running import main
from samples import Data
from searching import Plan, Task
from torch import nn


def block(cin: int, cout: int, kernel: int, dilation: int = 1) -> list[nn.Module]:
    """Return the layers of a causal convolution: an output sees no later input."""
    return [
        nn.ConstantPad1d(((kernel - 1) * dilation, 0), 0.0),
        nn.Conv1d(cin, cout, kernel, dilation=dilation, bias=False),
        nn.BatchNorm1d(cout),
        nn.ReLU(),
    ]


def head(channels: int) -> list[nn.Module]:
    """Return the layers of the classifier."""
    return [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(channels, 7)]


def tcn() -> nn.Module:
    """Return the network to search in: more channels and longer kernels than it takes."""
    layers: list[nn.Module] = []
    for cin, cout in ((6, 32), (32, 32), (32, 64)):
        layers += [*block(cin, cout, kernel=17), nn.AvgPool1d(2)]
    return nn.Sequential(*layers, *block(64, 64, kernel=17), *head(64))


def dilated_tcn() -> nn.Module:
    """Return a network made by hand: short kernels, dilations of powers of two."""
    layers: list[nn.Module] = block(6, 32, 3)
    for dilation in (2, 4, 8, 16, 32, 1, 2):
        layers += block(32, 32, 3, dilation)
    return nn.Sequential(*layers, *head(32))


def few_windows() -> Data:
    """Return a third of the windows in training, of three people fewer."""
    return load_watch(train_subjects=(4, 5, 6, 7), stride=WINDOW)


TASK = Task(
    load=load_watch,
    nets={"TCN": tcn, "dilated TCN": dilated_tcn},
    costs={"latency": "gap8_compute:latency", "params": "counts:params"},
    targets={"latency": "20 %", "params": "12 %"},
    strengths=(0.2, 0.5, 1.0, 2.0, 4.0),
    plan=Plan(10, 10, 10, nas_lr=5e-3),
)
FAST = replace(TASK, load=few_windows, strengths=(1.0, 3.0), plan=Plan(5, 10, 5))

if __name__ == "__main__":
    main(TASK, FAST)
