"""Search methods over a network's channels, branches, bits and engines.

Imported as ``hwcost.search`` only: under a second name every class in here would exist twice,
and ``isinstance`` would tell the two apart.
"""

if __name__ != "hwcost.search":
    raise ImportError("this package is named 'hwcost.search'; write `import hwcost.search`")

from hwcost.search.attention import Attention
from hwcost.search.attributions import (
    APoZAttributionMetric,
    AttributionMetric,
    RandomAttributionMetric,
    SensitivityAttributionMetric,
    ShapleyAttributionMetric,
    TaylorAttributionMetric,
    WeightNormAttributionMetric,
)
from hwcost.search.base import Search
from hwcost.search.choice import Choice, PITSuperNetModule, SuperNetModule
from hwcost.search.gates import Schedule
from hwcost.search.kernels_padded import PaddedConv1d, PaddedConv2d, PaddedConv3d
from hwcost.search.layers import PITConv1d, PITConv2d, PITConv3d, PITLinear
from hwcost.search.method import Method
from hwcost.search.mps import MPS
from hwcost.search.nm import NMPruning
from hwcost.search.nm_sparse import to_sparse
from hwcost.search.odimo import ODiMO
from hwcost.search.options import LayerQuant, MPSType, get_default_qinfo
from hwcost.search.pit import PIT
from hwcost.search.pit_supernet import PITSuperNet
from hwcost.search.pruner import Pruner
from hwcost.search.pruner_by_hand import Removed
from hwcost.search.pruner_reach import Reached
from hwcost.search.recalibrate import recalibrate_bn
from hwcost.search.refine import refine
from hwcost.search.regularizers import DUCCIO, BaseRegularizer, Constraint
from hwcost.search.supernet import SuperNet
from hwcost.search.weight_pruning import (
    PruneCell,
    PruneFiller,
    PruneMode,
    PruneUnit,
    WeightPruning,
    prune_from_ini,
    prune_weights,
)

#: Another name of ``ODiMO``.
ODiMO_MPS = ODiMO

__all__ = [
    "DUCCIO",
    "MPS",
    "PIT",
    "APoZAttributionMetric",
    "Attention",
    "AttributionMetric",
    "BaseRegularizer",
    "Choice",
    "Constraint",
    "LayerQuant",
    "MPSType",
    "Method",
    "NMPruning",
    "ODiMO",
    "ODiMO_MPS",
    "PITConv1d",
    "PITConv2d",
    "PITConv3d",
    "PITLinear",
    "PITSuperNet",
    "PITSuperNetModule",
    "PaddedConv1d",
    "PaddedConv2d",
    "PaddedConv3d",
    "PruneCell",
    "PruneFiller",
    "PruneMode",
    "PruneUnit",
    "Pruner",
    "RandomAttributionMetric",
    "Reached",
    "Removed",
    "Schedule",
    "Search",
    "SensitivityAttributionMetric",
    "ShapleyAttributionMetric",
    "SuperNet",
    "SuperNetModule",
    "TaylorAttributionMetric",
    "WeightNormAttributionMetric",
    "WeightPruning",
    "get_default_qinfo",
    "prune_from_ini",
    "prune_weights",
    "recalibrate_bn",
    "refine",
    "to_sparse",
]
