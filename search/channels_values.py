"""Channels of a network in classes, each of which stands or falls as one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from hwcost.recorder_values import Ref


@dataclass(frozen=True)
class Axis:
    """Classes that share producers: one decision for each.

    Attributes:
        name: path of its first producer's module; the producer's own name if several axes would
            have that path.
        start: its first class; its classes are ``start .. start + size - 1``.
        size: how many classes.
        producers: names of the weights whose output channels it holds, in order of first use.
    """

    name: str
    start: int
    size: int
    producers: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Cut:
    """A dimension of a parameter or buffer whose entries go with classes.

    Attributes:
        dim: the dimension.
        classes: int64, shape (size of that dimension,); -1 stays always.
        role: "in" where the parameter reads these channels and mixes them, "out" where it
            produces them, "follow" where it goes along, as a bias does.
    """

    dim: int
    classes: Tensor
    role: Literal["in", "out", "follow"]


@dataclass(frozen=True, eq=False)
class Field:
    """Which class an element of a tensor belongs to; it dies if one of its fields' classes does.

    Attributes:
        classes: int64, of the tensor's rank and broadcastable to its shape; -1 stays always.
    """

    classes: Tensor


@dataclass(frozen=True, eq=False)
class Norm:
    """A normalisation whose statistics mix channels.

    Attributes:
        classes: int64, over the normalised features, flattened; over the channels if in groups.
        groups: in how many groups the channels are normalised, 1 for a layer norm.
    """

    classes: Tensor
    groups: int


@dataclass(frozen=True)
class Barrier:
    """Where channels must stay, and why.

    Attributes:
        layer: path of the module.
        what: the operator or parameter.
        reason: why, in one line.
    """

    layer: str
    what: str
    reason: str


@dataclass(frozen=True, eq=False)
class Channels:
    """All channels of a network that can go, as classes ``0 .. n_classes - 1``.

    Attributes:
        axes: in order of first use; classes are numbered axis by axis.
        cuts: name of a parameter or buffer -> where it is cut; one that is shared has its first
            name.
        fields: of every tensor that the run computed, or got, from data.
        norms: path of a module -> its normalisation, where statistics must skip dead channels.
        inputs: path of a recurrent module -> classes of its input features.
        features: path of a normalisation -> classes of its channels, -1 where they stay.
        frozen: name of a weight -> why its output channels stay, all of them.
        barriers: what holds channels back, in order of first use.
        n_classes: how many classes.
    """

    axes: tuple[Axis, ...]
    cuts: Mapping[str, tuple[Cut, ...]]
    fields: Mapping[Ref, tuple[Field, ...]]
    norms: Mapping[str, Norm]
    inputs: Mapping[str, Tensor]
    frozen: Mapping[str, str]
    barriers: tuple[Barrier, ...]
    n_classes: int
    features: Mapping[str, Tensor] = field(default_factory=dict)
