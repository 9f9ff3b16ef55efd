"""Small networks whose channels are tied in every way that networks in use have."""

from tests import channel_nets_code, channel_nets_convs, channel_nets_tokens

_PARTS = channel_nets_convs.NETS, channel_nets_code.NETS, channel_nets_tokens.NETS

#: Name -> a network and the arguments of its forward.
NETS = {name: make for part in _PARTS for name, make in part.items()}

#: Name -> the axes of the network and their sizes, counted by hand.
AXES = {name: axes for part in _PARTS for name, axes in part.axes.items()}
