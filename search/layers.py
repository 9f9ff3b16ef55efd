"""Layers to write into a model: ``PIT(model, autoconvert_layers=False)`` searches these only."""

from torch import nn


class PITConv1d(nn.Conv1d):
    """``nn.Conv1d`` whose channels, receptive field and dilation PIT may search."""


class PITConv2d(nn.Conv2d):
    """``nn.Conv2d`` whose channels and kernel PIT may search."""


class PITConv3d(nn.Conv3d):
    """``nn.Conv3d`` whose channels and kernel PIT may search."""


class PITLinear(nn.Linear):
    """``nn.Linear`` whose output features PIT may search."""


#: Layer -> what an export makes of it.
PLAIN: dict[type[nn.Module], type[nn.Module]] = {
    PITConv1d: nn.Conv1d,
    PITConv2d: nn.Conv2d,
    PITConv3d: nn.Conv3d,
    PITLinear: nn.Linear,
}
