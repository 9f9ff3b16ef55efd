"""Search in a small convolutional network that reads scikit-learn's digits; takes seconds."""

from data_digits import load_digits
from running import main
from searching import Plan, Task
from torch import nn


def block(cin: int, cout: int, stride: int) -> list[nn.Module]:
    """Return the layers of a convolution."""
    conv = nn.Conv2d(cin, cout, 3, stride=stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(cout), nn.ReLU()]


def cnn() -> nn.Module:
    """Return the network to search in: 8x8 pixels, then 4x4, then 2x2."""
    body = [*block(1, 16, 1), *block(16, 32, 2), *block(32, 64, 2)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


TASK = Task(
    load=load_digits,
    nets={"CNN": cnn},
    costs={"latency": "gap8_compute:latency", "params": "counts:params"},
    targets={"latency": "25 %", "params": "20 %"},
    strengths=(0.1, 0.3, 1.0, 3.0, 10.0),
    plan=Plan(15, 30, 15, nas_lr=5e-3),
)
FAST = Task(TASK.load, TASK.nets, TASK.costs, TASK.targets, (0.3, 3.0), Plan(6, 15, 6))

if __name__ == "__main__":
    main(TASK, FAST)
