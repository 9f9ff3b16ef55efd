"""Which weights read channels, and so must leave dead ones out."""

from collections.abc import Iterator

from torch import Tensor, nn

from hwcost.recorder_values import without_compiler
from hwcost.search.channels_values import Channels, Cut
from hwcost.search.slicing import named_tensors


def reading(model: nn.Module, channels: Channels) -> Iterator[tuple[str, Cut]]:
    """Yield weights, parameters or not, with a dimension along which they mix channels.

    Of a parameter and a buffer that it is multiplied by, as a mask of single weights is, one is
    enough: the parameter.
    """
    parameters = {without_compiler(name) for name, _ in model.named_parameters()}
    tensors = named_tensors(model)
    trained = {_sort(channels, n, tensors[n]): n for n in channels.cuts if n in parameters}
    for name, cuts in channels.cuts.items():
        partner = trained.get(_sort(channels, name, tensors[name]), name)
        masked = name not in parameters and name.startswith(partner.rpartition(".")[0])
        if masked and (partner != name or not tensors[name].is_floating_point()):
            continue
        for cut in cuts:
            if cut.role == "in":
                yield name, cut


def _sort(channels: Channels, name: str, tensor: Tensor) -> tuple[object, ...]:
    """Return what a weight and its mask have in common: shape, and channels on each side."""
    cuts = ((cut.dim, tuple(cut.classes.tolist())) for cut in channels.cuts[name])
    return tuple(tensor.shape), *cuts
