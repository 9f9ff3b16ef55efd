"""The weights of a model that can be pruned, and their names."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from hwcost.errors import SearchError, UnknownName, suggestion
from hwcost.search.swap import is_swapped, owners
from hwcost.search.weight_pruning_cell import PruneCell
from hwcost.search.weight_pruning_masks import Pruned, parametrizations

#: Class of layers -> the weights that each may have.
WEIGHTS: dict[type[nn.Module], tuple[str, ...]] = {
    _ConvNd: ("weight",),
    nn.Linear: ("weight",),
    nn.MultiheadAttention: ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"),
}


@dataclass(frozen=True, eq=False)
class Weight:
    """One weight, and every attribute of the model that holds it.

    Attributes:
        names: the layers that read it; ``path.attribute`` where that is not ``weight``.
        holders: each module and attribute, those of embeddings that share it too.
    """

    names: tuple[str, ...]
    holders: tuple[tuple[nn.Module, str], ...]

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def value(self) -> Tensor:
        """The weight as its layer reads it."""
        module, attribute = self.holders[0]
        value: Tensor = getattr(module, attribute).detach()
        return value


def find_weights(model: nn.Module) -> list[Weight]:
    """Return the weights of all convolutions, linear layers and attentions, each once.

    Raises:
        SearchError: there are none.
    """
    if not isinstance(model, nn.Module):
        raise SearchError(f"expected an nn.Module to prune; got {type(model).__name__}")
    shared: dict[object, list[tuple[str, nn.Module, str]]] = {}
    for name, module, attribute in _named(model):
        key = module._parameters.get(attribute, (module, attribute))
        shared.setdefault(key, []).append((name, module, attribute))
    if not shared:
        raise SearchError(f"{type(model).__name__} has no convolution and no linear layer to prune")
    return [_weight(model, places) for places in shared.values()]


def _named(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    for path, module in model.named_modules():
        if "parametrizations" in path.split("."):
            continue
        attributes = next((WEIGHTS[kind] for kind in WEIGHTS if isinstance(module, kind)), ())
        for attribute in attributes:
            if getattr(module, attribute, None) is not None:
                yield named(path, attribute), module, attribute


def named(path: str, attribute: str) -> str:
    """Return a weight's name: its layer's, and the attribute where that says more."""
    return path if path and attribute == "weight" else f"{path}.{attribute}".lstrip(".")


def _weight(model: nn.Module, places: list[tuple[str, nn.Module, str]]) -> Weight:
    _, module, attribute = places[0]
    own = module._parameters.get(attribute)
    holders = [(module, attribute)] if own is None else owners(model, own)
    holders = [one for one in holders if not isinstance(one[0], parametrize.ParametrizationList)]
    return Weight(tuple(name for name, _, _ in places), tuple(holders))


def check(weight: Weight) -> None:
    """Refuse a weight that cannot be pruned.

    Raises:
        SearchError: it says why.
    """
    problem = _problem(weight)
    if problem:
        raise SearchError(f"layer {weight.name!r}: {problem}")


def _problem(weight: Weight) -> str:
    module, attribute = weight.holders[0]
    own = module._parameters.get(attribute)
    if is_swapped(module):
        return "it belongs to a search; prune the model that search.export() returns"
    if parametrize.is_parametrized(module, attribute):
        if any(isinstance(one, Pruned) for one in parametrizations(module, attribute)):
            return "its weight is pruned already; remove() that pruning first"
    elif own is None:
        return (
            f"its {attribute} is no parameter; a hook seems to make it, as torch.nn.utils.prune "
            "does: make that permanent first"
        )
    elif is_lazy(own):
        return "its weight has no shape yet; run the model once first"
    return _unfit(weight.value)


def _unfit(value: Tensor) -> str:
    if value.is_meta:
        return "its weight is on the meta device; load its values first"
    if not value.is_floating_point() or value.element_size() < 2:
        return f"its weight is {value.dtype}; expected float16, bfloat16, float32 or float64"
    return ""


def chosen(
    weights: list[Weight], cells: Mapping[str, PruneCell], ignore: Iterable[str], model: nn.Module
) -> list[tuple[Weight, PruneCell]]:
    """Return the weights to prune, each with its cell.

    Args:
        weights: all of the model.
        cells: by name of a layer or pattern of names; a name goes before patterns.
        ignore: names and patterns of layers that are left as they are.
        model: for messages.

    Raises:
        UnknownName: a name or a pattern fits no layer.
        SearchError: two patterns fit one layer, or layers that share a weight differ.
    """
    known = [name for weight in weights for name in weight.names]
    ignored = [ignore] if isinstance(ignore, str) else list(ignore)
    for pattern in (*cells, *ignored):
        if not any(_fits(name, pattern) for name in known):
            raise UnknownName(
                f"no layer to prune is named {pattern!r}{_hint(pattern, known, model)}"
            )
    pairs = [(weight, _cell(weight, cells, ignored)) for weight in weights]
    return [(weight, cell) for weight, cell in pairs if cell is not None]


def _cell(weight: Weight, cells: Mapping[str, PruneCell], ignored: list[str]) -> PruneCell | None:
    """Return the cell of a weight; the layers that read it have to agree."""
    found = [
        None if any(_fits(name, one) for one in ignored) else _fitting(name, cells)
        for name in weight.names
    ]
    if any(one != found[0] for one in found):
        names = ", ".join(map(repr, weight.names))
        raise SearchError(f"layers {names} share one weight; give all of them the same cell")
    return found[0]


def _fitting(name: str, cells: Mapping[str, PruneCell]) -> PruneCell | None:
    if name in cells:
        return cells[name]
    patterns = [pattern for pattern in cells if _fits(name, pattern)]
    if len(patterns) > 1:
        first, second = patterns[:2]
        raise SearchError(
            f"layer {name!r} fits {first!r} and {second!r}; name it itself to say which it is"
        )
    return cells[patterns[0]] if patterns else None


def _fits(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def _hint(pattern: str, known: list[str], model: nn.Module) -> str:
    if any(name.startswith(f"{pattern}.") for name in known):
        return f"; its layers are {pattern + '.*'!r}"
    module = dict(model.named_modules()).get(pattern)
    if module is not None:
        return f": {type(module).__name__} is no convolution and no linear layer"
    return suggestion(pattern, known)
