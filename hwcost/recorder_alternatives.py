"""The op that stands where one of several branches is chosen: it has no row in a table."""

from collections.abc import Sequence

import torch
from torch import Tensor

#: Its name in a recording.
ALTERNATIVES = "hwcost.alternatives"


@torch.library.custom_op("hwcost::alternatives", mutates_args=())
def alternatives(outputs: Sequence[Tensor]) -> Tensor:
    """Return a copy of the first of several tensors of equal shape.

    In a recording it says that any one of them may be what the network goes on with, so that
    every branch is recorded and the choice itself costs nothing.
    """
    return outputs[0].clone()


@alternatives.register_fake
def _(outputs: Sequence[Tensor]) -> Tensor:
    return torch.empty_like(outputs[0])
