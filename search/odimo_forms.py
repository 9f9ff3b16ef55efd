"""Convolutions that some engines compute as dense and others as depthwise ones.

Such a layer has both weights: channel by channel they are mixed in the search, the depthwise
one as the diagonal of the dense one. An export has a dense convolution for the channels of some
engines and a depthwise one for those of others.

Source:
    arXiv:2409.18566.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.recorder_values import Recording
from hwcost.search.channels import Channels
from hwcost.search.odimo_offers import LayerOffers
from hwcost.search.odimo_reorder import Reordering
from hwcost.search.odimo_split import replaced, split
from hwcost.search.options import Option
from hwcost.search.quantize import mixed_weight
from hwcost.search.quantized_now import Now
from hwcost.search.swap import owners, user_class
from hwcost.search.table import Count
from hwcost.search.variants import Variant

if TYPE_CHECKING:
    from hwcost.search.base import Search
    from hwcost.search.odimo_method import ODiMOMethod

#: The parameter of a layer of both forms that holds its depthwise weight, (channels, 1, ...).
KERNEL = "weight_depthwise"

#: Layers that can have both forms.
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Forms:
    """The layers of a network that have both forms.

    Attributes:
        kernels: number of the layer -> which of its options are depthwise.
    """

    def __init__(self, method: "ODiMOMethod") -> None:
        self.method = method
        self.kernels: dict[int, tuple[bool, ...]] = {}

    def possible(
        self, model: nn.Module, recording: Recording, weight: str, found: LayerOffers
    ) -> LayerOffers:
        """Return what of some offers can be had: other forms of torch's own layers alone.

        A weight that other code reads keeps its form, and so does a layer whose input is padded
        by another.
        """
        path = weight.rpartition(".")[0]
        module = model.get_submodule(path)
        plain = user_class(module) in CONVS and getattr(module, "padding_mode", "") == "zeros"
        alone = len(owners(model, model.get_parameter(weight))) == 1
        if not found.becomes or (plain and alone and _reads_in(recording, weight, path)):
            return found
        native = found.becomes == "dense"
        return LayerOffers(tuple(o for o in found.offers if o.depthwise is native))

    @torch.no_grad()
    def turn_dense(self, model: nn.Module) -> None:
        """Make depthwise layers dense that some engine computes so; they compute the same."""
        for path in self._paths("dense"):
            module: Any = model.get_submodule(path)
            old = module.weight
            dense = old.new_zeros(len(old), len(old), *old.shape[2:])
            _diagonal(dense).copy_(old[:, 0].movedim(0, -1))
            module.groups = 1
            module.weight = nn.Parameter(dense, requires_grad=old.requires_grad)

    @torch.no_grad()
    def add_kernels(self, model: nn.Module) -> None:
        """Give layers of both forms a depthwise weight: the diagonal of the dense one."""
        for name, found in self.method.offers.items():
            if not (found.becomes and any(offer.depthwise for offer in found.offers)):
                continue
            path = name.rpartition(".")[0]
            module: Any = model.get_submodule(path)
            dense = module._parameters["weight"]
            kernel = (
                _diagonal(dense)
                .movedim(-1, 0)[:, None]
                .clone(memory_format=torch.contiguous_format)
            )
            kernel = nn.Parameter(kernel, requires_grad=dense.requires_grad)
            module.register_parameter(KERNEL, kernel)

    def _paths(self, becomes: str) -> list[str]:
        offers = self.method.offers.items()
        return [name.rpartition(".")[0] for name, found in offers if found.becomes == becomes]

    def variants(
        self, search: "Search", found: Mapping[int, Sequence[Variant]]
    ) -> dict[int, Sequence[Variant]]:
        """Return how rows run, depthwise where an engine does that; finds ``kernels``."""
        for number, weight in enumerate(self.method.layers):
            if KERNEL in search.model.get_submodule(weight.path)._parameters:
                offers = self.method.offers[weight.name].offers
                depthwise = {offer.option: offer.depthwise for offer in offers}
                self.kernels[number] = tuple(depthwise[option] for option in weight.options)
        changed = dict(found)
        assert self.method._entries is not None
        for row, part in self.method._entries.of_row.items():
            if part.number in self.kernels:
                options = self.depthwise_options(part.number)
                engines = {option.engine for option in options}
                channels = float(self.method.layers[part.number].channels)
                changed[row] = [
                    _as_depthwise(v, channels) if v.engine in engines else v for v in found[row]
                ]
        return changed

    def usual(self, number: int) -> Variant:
        """Return how a layer runs in the user's network: at most bits, in its own form."""
        weight = self.method.layers[number]
        native = self.method.offers[weight.name].becomes == "dense"
        forms = self.kernels.get(number, (False,) * len(weight.options))
        pairs = list(zip(weight.options, forms, strict=True))
        option, depthwise = next((pair for pair in pairs if pair[1] is native), pairs[0])
        sizes = {"w_bits": float(option.bits)}
        if depthwise:
            sizes["groups"] = float(weight.channels)
        return Variant(sizes, engine=option.engine)

    def depthwise_options(self, number: int) -> set[Option]:
        """Return the options of a layer that are depthwise."""
        pairs = zip(self.method.layers[number].options, self.kernels[number], strict=True)
        return {option for option, depthwise in pairs if depthwise}

    def read_classes(self, channels: Channels, number: int) -> Tensor | None:
        """Return the classes of the channels that a layer reads, None where they stay."""
        for cut in channels.cuts.get(self.method.layers[number].name, ()):
            if cut.dim == 1 and cut.role == "in":
                return cut.classes
        return None

    def refuse_removal(self, search: "Search") -> None:
        """Refuse another method that removes channels of such a layer.

        Raises:
            SearchError: one does.
        """
        searched = search.alive.searched()
        spans = [(a.start, a.start + a.size) for a in search.channels.axes if a.name in searched]
        for number in self.kernels:
            weight = self.method.layers[number]
            read = self.read_classes(search.channels, number)
            touched = {*weight.classes.tolist(), *([] if read is None else read.tolist())}
            if any(start <= c < stop for c in touched for start, stop in spans):
                raise SearchError(
                    f"layer {weight.path!r} can be dense or depthwise, and another method removes"
                    " its channels; leave it out of one of the two with exclude_names"
                )

    def mixed(self, number: int, dense: Tensor, now: Now) -> Tensor:
        """Return a layer's weight, the depthwise one in its diagonal, as its channels are now."""
        weight, depthwise = self.method.layers[number], self.kernels[number]
        kernel, scales = self.kernel(number), now.scales[number]
        shares = now.weights[number]
        shares = scales.new_ones(scales.shape) if shares is None else shares.expand(scales.shape)

        def rounded(parameter: Tensor, form: bool) -> Tensor:
            at = [i for i, own in enumerate(depthwise) if own is form]
            if not at:
                return torch.zeros_like(parameter)
            grids = [weight.grids[i] for i in at]
            return mixed_weight(parameter, scales[:, at], shares[:, at], grids)

        places = torch.arange(len(dense), device=dense.device)
        outer, inner = rounded(dense, False), rounded(kernel, True)[:, 0]
        return outer.index_put((places, places), inner.to(outer.dtype), accumulate=True)

    def scales(self, number: int, of_dense: Tensor, of_depthwise: Tensor) -> Tensor:
        """Return the scales of each option by its own weight, shape ``(channels, options)``."""
        depthwise = torch.tensor(self.kernels[number], device=of_dense.device)
        return torch.where(depthwise, of_depthwise, of_dense)

    def kernel(self, number: int) -> Tensor:
        """Return the depthwise weight of a layer of both forms, shape ``(channels, 1, ...)``."""
        module = self.method._model[0].get_submodule(self.method.layers[number].path)
        kernel = module._parameters[KERNEL]
        assert kernel is not None
        return kernel

    def export(self, model: nn.Module, order: Reordering) -> nn.Module:
        """Replace layers of both forms by what their channels chose; return the network."""
        for number, own in self._chosen():
            weight = self.method.layers[number]
            module: Any = model.get_submodule(weight.path)
            kernel = module._parameters.pop(KERNEL)
            if any(own):
                kept = self.method.kept(number)
                place = order.index(weight.name, 1, weight.channels).argsort()
                kernel = nn.Parameter(kernel.detach()[kept], requires_grad=kernel.requires_grad)
                replaced(model, module, split(module, kernel, own, place[kept]))
        return model

    def _chosen(self) -> Iterator[tuple[int, list[bool]]]:
        """Yield layers, and whether each channel of them is depthwise, in the exported order."""
        chosen = self.method.chosen()
        for number in self.kernels:
            depthwise = self.depthwise_options(number)
            kept = self.method.kept(number).tolist()
            yield number, [chosen[number][i] in depthwise for i in kept]


def _reads_in(recording: Recording, weight: str, path: str) -> bool:
    """Whether only the code of a module reads a weight, with inputs that are not padded."""
    refs = {ref for ref, name in recording.parameters.items() if name == weight}
    calls = [call for call in recording.calls if refs & set(call.inputs)]
    made = [recording.tensors[ref].producer for call in calls for ref in call.args[:1]]
    padded = any(recording.calls[i].op.name == "aten.constant_pad_nd" for i in made if i >= 0)
    return not padded and {recording.scopes[call.scope].path for call in calls} == {path}


def _diagonal(weight: Tensor) -> Tensor:
    """Return the weights of each channel's own input, a view of shape ``(..., channels)``."""
    return weight.diagonal(dim1=0, dim2=1)


def _as_depthwise(variant: Variant, channels: float) -> Variant:
    """Return a variant of a dense row as that of a depthwise one."""
    sizes = {**variant.sizes, "groups": channels}
    share: Count | None = variant.parts.get("cout")
    parts = {} if share is None else dict.fromkeys(("cin", "cout", "groups"), share)
    return replace(variant, sizes=sizes, parts=parts)
