"""Linear layers with a 2:4 pattern, handed to torch's kernels for it."""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.sparse import to_sparse_semi_structured

from hwcost.errors import SearchError
from hwcost.search.pit_layers import Selection

#: What torch's kernels take: type of the numbers -> rows and columns must be multiples of these.
SHAPES = {
    torch.float16: (32, 64),
    torch.bfloat16: (32, 64),
    torch.int8: (32, 128),
}

#: The oldest GPU with tensor cores for the pattern.
CAPABILITY = (8, 0)


def to_sparse(
    model: nn.Module,
    *,
    exclude_names: Sequence[str] = (),
    exclude_types: Sequence[type[nn.Module]] = (),
) -> nn.Module:
    """Return a copy of a model whose 2:4 linear layers run on a GPU's sparse tensor cores.

    A layer whose weight has more than 2 numbers that are not 0 in some 4 consecutive inputs stays
    as it is. The copy is for inference.

    Args:
        model: such as an export of ``NMPruning(n=2, m=4)``, on a GPU and in half precision.
        exclude_names: layers that stay as they are, by module path; of a container, all in it.
        exclude_types: classes of layers that stay as they are.

    Raises:
        SearchError: no linear layer has the pattern, or one that has it is on no such GPU, or of
            a type or shape that torch's kernels do not take; the message names it.
        UnknownName: an excluded name does not exist.
    """
    selection = Selection(exclude_names, exclude_types)
    selection.check(model)
    found = dict(_found(model, selection))
    if not found:
        raise SearchError(
            f"{type(model).__name__} has no linear layer with 2 of every 4 weights 0"
            f"{selection.why()}; NMPruning(n=2, m=4) makes such"
        )
    for path, layer in found.items():
        check_weight(path, layer.weight)
    sparse = copy.deepcopy(model)
    for path in found:
        module = sparse.get_submodule(path)
        weight = module.get_parameter("weight").detach().contiguous()
        module.weight = nn.Parameter(to_sparse_semi_structured(weight), requires_grad=False)
    return sparse


def has_pattern(weight: Tensor) -> bool:
    """Whether at most 2 of every 4 consecutive numbers of a row are not 0."""
    if weight.dim() != 2 or weight.shape[1] % 4 or not weight.numel() or weight.is_meta:
        return False
    return int((weight != 0).unflatten(1, (-1, 4)).sum(2).max()) <= 2


def check_weight(path: str, weight: Tensor) -> None:
    """Refuse a weight that torch's kernels do not take.

    Raises:
        SearchError: it says why.
    """
    if not weight.is_cuda:
        raise SearchError(
            f"layer {path!r} is on {weight.device.type!r}; 2:4 kernels need a GPU of compute "
            "capability 8.0 or more: move the model there first"
        )
    if torch.cuda.get_device_capability(weight.device) < CAPABILITY:
        name = torch.cuda.get_device_name(weight.device)
        raise SearchError(f"layer {path!r} is on {name}, which has no 2:4 tensor cores")
    check_form(path, weight)


def check_form(path: str, weight: Tensor) -> None:
    """Refuse a weight of a type or shape that torch's kernels do not take.

    Raises:
        SearchError: it says what would be right.
    """
    if weight.dtype not in SHAPES:
        known = ", ".join(str(dtype) for dtype in SHAPES)
        raise SearchError(
            f"layer {path!r} has weights of {weight.dtype}; 2:4 kernels take {known}: "
            "call model.half() first"
        )
    rows, columns = SHAPES[weight.dtype]
    shape = tuple(weight.shape)
    if shape[0] % rows or shape[1] % columns:
        raise SearchError(
            f"layer {path!r} has a weight of shape {shape}; for {weight.dtype}, 2:4 kernels take "
            f"multiples of ({rows}, {columns}): leave it out with exclude_names=[{path!r}]"
        )


def _found(model: nn.Module, selection: Selection) -> Iterator[tuple[str, nn.Linear]]:
    """Yield the layers that have the pattern; those of torch's attention run in other code."""
    inside = {
        id(m) for a in model.modules() if isinstance(a, nn.MultiheadAttention) for m in a.modules()
    }
    for path, module in model.named_modules():
        if not isinstance(module, nn.Linear) or id(module) in inside:
            continue
        plain = isinstance(module._parameters.get("weight"), nn.Parameter)
        if plain and selection.takes(path, module) and has_pattern(module.weight.detach()):
            yield path, module
