"""Knobs: the trainable decisions of a search, each a module with parameters of its own."""

from hwcost.search.gates_choice import ChoiceKnob
from hwcost.search.gates_kernels import KernelBank
from hwcost.search.gates_masks import Mask, MaskBank
from hwcost.search.gates_ordered import DilationMask, OrderedMask
from hwcost.search.gates_sampling import Sampling, Schedule
from hwcost.search.gates_straight import straight_through, unit_weight

__all__ = [
    "ChoiceKnob",
    "DilationMask",
    "KernelBank",
    "Mask",
    "MaskBank",
    "OrderedMask",
    "Sampling",
    "Schedule",
    "straight_through",
    "unit_weight",
]
