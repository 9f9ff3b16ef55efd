"""Weight pruning: single weights of convolutions, linear layers and attentions become 0.

The cells, their fillers and the file format are those of N2D2's PruneCell
(https://cea-list.github.io/N2D2-docs/quant/pruning.html).
"""

from hwcost.search.weight_pruning_cell import PruneCell, PruneFiller, PruneMode, PruneUnit
from hwcost.search.weight_pruning_handle import WeightPruning
from hwcost.search.weight_pruning_ini import prune_from_ini
from hwcost.search.weight_pruning_install import prune_weights

__all__ = [
    "PruneCell",
    "PruneFiller",
    "PruneMode",
    "PruneUnit",
    "WeightPruning",
    "prune_from_ini",
    "prune_weights",
]
