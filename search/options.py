"""What can be chosen for the weights of a layer, and how its tensors are quantized."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from fnmatch import fnmatchcase

from hwcost.errors import HwcostError, SearchError, UnknownName, did_you_mean

#: Whether a layer chooses as one, or each of its output channels for itself.
GRANULARITIES = ("layer", "channel")


@dataclass(frozen=True, order=True)
class Option:
    """Where weights may go.

    Attributes:
        bits: how many bits they have; 0 removes their channel.
        engine: which engine computes with them, "" for the platform's choice.
    """

    bits: int
    engine: str = ""

    def __str__(self) -> str:
        return f"{self.engine} w{self.bits}".lstrip()


@dataclass(frozen=True)
class LayerQuant:
    """How a layer is quantized.

    Attributes:
        w_bits: precisions of the weights to choose from; 0 removes channels.
        a_bits: those of the tensors that the layer reads.
        weight: the rule for the scales of weights, one of ``WEIGHT_RULES``.
        activation: the quantizer of tensors, one of ``QUANTIZERS``.
        quantize: whether the layer is quantized at all.
    """

    w_bits: tuple[int, ...] = (2, 4, 8)
    a_bits: tuple[int, ...] = (8,)
    weight: str = "auto"
    activation: str = "pact"
    quantize: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "w_bits", _precisions("w_bits", self.w_bits, least=0))
        object.__setattr__(self, "a_bits", _precisions("a_bits", self.a_bits, least=2))


def _precisions(what: str, bits: Sequence[int] | int, least: int) -> tuple[int, ...]:
    if isinstance(bits, str) or not isinstance(bits, int | Sequence):
        raise SearchError(f"{what} is {bits!r}; expected a whole number or several")
    given = (bits,) if isinstance(bits, int) else tuple(bits)
    for one in given:
        if type(one) is not int or not least <= one <= 16 or one == 1:
            allowed = "0 or 2 to 16" if least == 0 else "2 to 16"
            raise SearchError(f"{what} holds {one!r}; expected whole numbers, {allowed}")
    if not given or given == (0,):
        raise SearchError(f"{what} is {bits!r}; expected at least one precision above 0")
    return tuple(sorted(set(given)))


class MPSType(Enum):
    """How many choices of precision a layer has, in the spelling of older code."""

    PER_LAYER = "layer"
    PER_CHANNEL = "channel"


#: Name of a layer (or a pattern with ``*``) -> how it is quantized; ``"default"`` for the rest.
Qinfo = Mapping[str, LayerQuant]


def get_default_qinfo(
    w_precision: Sequence[int] = (2, 4, 8), a_precision: Sequence[int] = (8,)
) -> dict[str, LayerQuant]:
    """Return how every layer is quantized by default; replace entries, or add layers' own."""
    return {"default": LayerQuant(tuple(w_precision), tuple(a_precision))}


def layer_quant(qinfo: Qinfo, path: str) -> LayerQuant:
    """Return how a layer is quantized: by its own entry, else the last pattern that fits."""
    if path in qinfo:
        return qinfo[path]
    fitting = [q for pattern, q in qinfo.items() if fnmatchcase(path, pattern)]
    return fitting[-1] if fitting else qinfo.get("default", LayerQuant())


def check_qinfo(qinfo: Qinfo, paths: Sequence[str] | None = None) -> None:
    """Refuse entries that are none, or fit no layer.

    Raises:
        SearchError: an entry is no LayerQuant.
        UnknownName: an entry names no layer.
    """
    for name, found in qinfo.items():
        if not isinstance(found, LayerQuant):
            raise SearchError(f"qinfo[{name!r}] is no LayerQuant but {type(found).__name__}")
        if name == "default" or paths is None:
            continue
        if not any(fnmatchcase(path, name) for path in paths):
            raise UnknownName(f"qinfo: no layer {name!r}{did_you_mean(name, paths)}")


def check_known(
    what: str, name: str, names: Iterable[str], error: type[HwcostError] = SearchError
) -> None:
    """Refuse a name that is not among those known; ``what`` has it, for the message.

    Raises:
        HwcostError: it is not; of the type that is given.
    """
    known = list(names)
    if name not in known:
        hint = did_you_mean(str(name), known)
        raise error(f"{what} is {name!r}{hint}; known: {', '.join(known)}")


def without_pruning(quant: LayerQuant) -> LayerQuant:
    """Return how a layer is quantized whose channels cannot be removed."""
    return replace(quant, w_bits=tuple(b for b in quant.w_bits if b))
