"""Small nets that every search method must handle; those with choices are in searchnets_choices.

Each has less than 30 000 parameters, and none of its biases, scales and statistics is at its
default: a removed channel that still contributes somewhere changes the output.
"""

from tests import searchnets_code, searchnets_convs, searchnets_kernels, searchnets_tokens
from tests.searchnets_base import Nets

#: Name -> makes the net, always with the same weights, and its example.
NETS: Nets = (
    searchnets_convs.NETS | searchnets_kernels.NETS | searchnets_tokens.NETS | searchnets_code.NETS
)
