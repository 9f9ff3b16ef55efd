"""Which engines of a platform can compute which layers, at which bits, and as which operation."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hwcost.errors import SearchError, UnknownName, suggestion
from hwcost.offers import DEFAULT, MODELLED, offer, status_of
from hwcost.platform import Engine, Platform
from hwcost.search.options import Option
from hwcost.search.quantized_table import rows_of_weights
from hwcost.structure import Structure
from hwcost.tracing import Traced
from hwcost.workload import Workload

#: Bits where neither an engine nor its platform says any.
USUAL_BITS = 8


@dataclass(frozen=True)
class Offer:
    """An engine that can compute a layer.

    Attributes:
        option: the engine and the bits of the weights that it computes with.
        depthwise: whether it computes the layer as a depthwise convolution.
    """

    option: Option
    depthwise: bool = False


@dataclass(frozen=True)
class LayerOffers:
    """Everything that engines offer for a weight.

    Attributes:
        offers: in the platform's order of engines.
        becomes: "dense" or "depthwise" where some engine computes the layer in a form that it
            does not have in the user's network, "" where all compute it as it is.
    """

    offers: tuple[Offer, ...]
    becomes: str = ""


@dataclass(frozen=True)
class Precisions:
    """Bits of each engine's weights, and those of all tensors."""

    w_bits: Mapping[str, int]
    a_bits: int


def precisions(
    platform: Platform, w_bits: Mapping[str, int] | None = None, a_bits: int | None = None
) -> Precisions:
    """Return the bits that a platform's engines compute with.

    Args:
        w_bits: engine -> bits of its weights, where they are not the most that it knows.
        a_bits: bits of tensors, where they are not the most that all engines know.

    Raises:
        UnknownName: the platform has no such engine.
        SearchError: it has no engines, an engine does not know the bits, or the engines have no
            bits of tensors in common.
    """
    if not platform.engines:
        raise SearchError(f"platform {platform.name!r} has no engines to choose from")
    for name in w_bits or {}:
        if name not in platform.engines:
            hint = suggestion(name, platform.engines)
            raise UnknownName(f"w_bits: {platform.name} has no engine {name!r}{hint}")
    usual = platform.deploy.get("w_bits", USUAL_BITS)
    chosen = {
        name: _weights(platform, engine, (w_bits or {}).get(name), usual)
        for name, engine in platform.engines.items()
    }
    return Precisions(chosen, _tensors(platform, a_bits))


def _weights(platform: Platform, engine: Engine, wanted: int | None, usual: int) -> int:
    known = engine.precision.get("w_bits", ())
    if wanted is None:
        return max(known, default=usual)
    if known and wanted not in known:
        listed = ", ".join(map(str, known))
        raise SearchError(
            f"w_bits: {platform.name}/{engine.name} has no {wanted}-bit weights; known: {listed}"
        )
    return wanted


def _tensors(platform: Platform, wanted: int | None) -> int:
    known = {name: e.precision.get("a_bits", ()) for name, e in platform.engines.items()}
    sets = [set(bits) for bits in known.values() if bits]
    common = set.intersection(*sets) if sets else {platform.deploy.get("a_bits", USUAL_BITS)}
    listed = "; ".join(f"{name} {', '.join(map(str, b)) or 'any'}" for name, b in known.items())
    if not common:
        raise SearchError(
            f"the engines of {platform.name} have no bits of tensors in common: {listed}"
        )
    if wanted is None:
        return max(common)
    if sets and wanted not in common:
        raise SearchError(f"a_bits is {wanted}; not all engines know it: {listed}")
    return wanted


def offers_by_weight(
    platform: Platform, traced: Traced, bits: Precisions
) -> dict[str, LayerOffers]:
    """Return what engines offer for every weight of a network that ran; none for some, maybe.

    A layer that is run several times is offered where all its runs are.
    """
    found: dict[str, LayerOffers] = {}
    rows: dict[str, list[int]] = {}
    for row, _, weight in rows_of_weights(traced):
        rows.setdefault(traced.recording.parameters[weight], []).append(row)
    every = row_offers(platform, traced.workload, bits)
    for name, own in rows.items():
        first, *others = [every[row] for row in own]
        for other in others:
            common = tuple(o for o in first.offers if o in other.offers)
            first = LayerOffers(common, first.becomes)
        found[name] = _pruned(first)
    return found


def _pruned(found: LayerOffers) -> LayerOffers:
    """Return offers that are of several forms only where both forms are offered."""
    forms = {offer.depthwise for offer in found.offers}
    native = found.becomes == "dense"
    if found.becomes and forms == {native}:
        return LayerOffers(found.offers)
    return found


def row_offers(platform: Platform, workload: Workload, bits: Precisions) -> list[LayerOffers]:
    """Return what engines offer for every row, each engine asked at its own bits.

    An engine that does not compute a convolution as it is may compute one of another form:
    a depthwise one in place of one with as many channels in as out, or, where no engine computes
    both forms, the dense one in place of a depthwise one.
    """
    structure = workload.structure
    square, depthwise = _square(structure), _depthwise(structure)
    own: dict[str, list[bool]] = {}
    other: dict[str, list[bool]] = {}
    turned = _turned(structure, square, depthwise)
    for name, engine in platform.engines.items():
        own[name] = _computes(platform, engine, structure, bits)
        other[name] = _computes(platform, engine, turned, bits)
    asked = (square | depthwise).tolist()
    return [
        _joined(
            bits,
            {name: own[name][row] for name in own},
            {name: asked[row] and other[name][row] for name in own},
            bool(depthwise[row]),
        )
        for row in range(len(workload))
    ]


def _joined(
    bits: Precisions, own: Mapping[str, bool], other: Mapping[str, bool], depthwise: bool
) -> LayerOffers:
    both = any(own[name] and other[name] for name in own)
    found = list(_each(bits, own, other, depthwise, turns=not (depthwise and both)))
    changed = any(offer.depthwise != depthwise for offer in found)
    becomes = ("dense" if depthwise else "depthwise") if changed else ""
    return LayerOffers(tuple(found), becomes)


def _each(
    bits: Precisions,
    own: Mapping[str, bool],
    other: Mapping[str, bool],
    depthwise: bool,
    turns: bool,
) -> Iterator[Offer]:
    for name in own:
        if own[name]:
            yield Offer(Option(bits.w_bits[name], name), depthwise)
        elif turns and other[name]:
            yield Offer(Option(bits.w_bits[name], name), not depthwise)


def _square(structure: Structure) -> Tensor:
    """Return which rows are dense convolutions of as many channels as they read."""
    cin, cout, groups = (structure.traced[n] for n in ("cin", "cout", "groups"))
    return _is_conv(structure) & (groups == 1) & (cin == cout) & (cout > 1)


def _depthwise(structure: Structure) -> Tensor:
    """Return which rows are depthwise convolutions with a result for each channel."""
    cin, cout, groups = (structure.traced[n] for n in ("cin", "cout", "groups"))
    return _is_conv(structure) & (groups > 1) & (cin == groups) & (cin == cout)


def _is_conv(structure: Structure) -> Tensor:
    return torch.tensor([kind == "conv" for kind in structure.kinds])


def _turned(structure: Structure, square: Tensor, depthwise: Tensor) -> Structure:
    """Return the same rows with dense convolutions depthwise, and the other way round."""
    groups = torch.where(square, structure.traced["cout"], structure.traced["groups"])
    groups = torch.where(depthwise, 1.0, groups)
    return replace(structure, traced={**structure.traced, "groups": groups})


def _computes(
    platform: Platform, engine: Engine, structure: Structure, bits: Precisions
) -> list[bool]:
    """Return which rows an engine has a formula for."""
    own = {"w_bits": float(bits.w_bits[engine.name]), "a_bits": float(bits.a_bits)}
    traced = dict(structure.traced)
    for name, value in own.items():
        traced[name] = torch.full_like(traced[name], value)
    found = offer(platform, engine, replace(structure, traced=traced))
    known = [status_of(engine, entry) in (MODELLED, DEFAULT) for entry in found.entries]
    ranks, entries = found.rank.tolist(), found.entry.tolist()
    return [rank > 0 and known[entry] for rank, entry in zip(ranks, entries, strict=True)]


def refuse_none(platform: Platform, path: str, found: LayerOffers | None) -> Sequence[Offer]:
    """Return the offers for a layer.

    Raises:
        SearchError: there are none.
    """
    if found is None or not found.offers:
        engines = ", ".join(platform.engines)
        raise SearchError(
            f"layer {path!r}: no engine of {platform.name} computes it ({engines});"
            " leave it out with exclude_names"
        )
    return found.offers
