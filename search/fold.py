"""Normalisations folded into the layers before them, as every quantized network runs them."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from hwcost.recorder_values import Call, Recording, Ref

#: Layers that a normalisation can be folded into -> dimension of the weight's output channels.
FOLDING: dict[type[nn.Module], int] = {
    nn.Conv1d: 0,
    nn.Conv2d: 0,
    nn.Conv3d: 0,
    nn.Linear: 0,
    nn.ConvTranspose1d: 1,
    nn.ConvTranspose2d: 1,
    nn.ConvTranspose3d: 1,
}

_NORM = "aten.batch_norm"
_LAYERS = ("aten.convolution", "aten._convolution", "aten.linear")


def plain_weights(model: nn.Module) -> None:
    """Make parametrized weights of layers (weight norm, spectral norm) parameters, in place."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module, "weight") and isinstance(module, tuple(FOLDING)):
            # The class is the user's module's too, and torch takes the property away from it.
            cls = type(module)
            module.__class__ = type(cls.__name__, cls.__bases__, dict(vars(cls)))
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


def fold_norms(model: nn.Module, recording: Recording) -> list[str]:
    """Fold each BatchNorm that alone reads a layer's result into that layer, in place.

    Its running statistics are taken: training goes on without normalisation. The norm's place
    is taken by ``nn.Identity``.

    Args:
        model: of the user's own classes.
        recording: a run of it.

    Returns:
        The paths of the norms that are gone.
    """
    pairs = list(_pairs(model, recording))
    for layer, norm in pairs:
        _fold(model.get_submodule(layer), model.get_submodule(norm))
    gone = {id(model.get_submodule(norm)) for _, norm in pairs}
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if id(child) in gone:
                setattr(parent, name, _passing(child))
    return [norm for _, norm in pairs]


def _passing(norm: nn.Module) -> nn.Identity:
    """Return what does nothing, but still tells a model's code the norm's sizes and options."""
    identity = nn.Identity().train(norm.training)
    plain = {k: v for k, v in vars(norm).items() if type(v) in (int, float, bool)}
    identity.__dict__.update(plain)
    return identity


def _pairs(model: nn.Module, recording: Recording) -> Iterator[tuple[str, str]]:
    """Yield paths of a layer and of the norm that follows it."""
    readers: dict[Ref, list[Call]] = {}
    for call in recording.calls:
        for ref in call.inputs:
            readers.setdefault(ref, []).append(call)
    calls: dict[str, int] = {}
    for scope in recording.scopes:
        calls[scope.path] = calls.get(scope.path, 0) + 1
    for call in recording.calls:
        if call.op.name != _NORM:
            continue
        read = call.inputs[0]
        producer = recording.tensors[read].producer
        made = recording.calls[producer] if producer >= 0 else None
        if made is None or made.op.name not in _LAYERS or len(readers[read]) > 1:
            continue
        layer, norm = (recording.scopes[c.scope].path for c in (made, call))
        once = calls[layer] == calls[norm] == 1 and read not in recording.outputs
        if once and _can_fold(model, recording, made, layer, norm):
            yield layer, norm


def _can_fold(model: nn.Module, recording: Recording, made: Call, layer: str, norm: str) -> bool:
    module, batch_norm = model.get_submodule(layer), model.get_submodule(norm)
    if not isinstance(module, tuple(FOLDING)) or not isinstance(batch_norm, _BatchNorm):
        return False
    if batch_norm.running_mean is None or batch_norm.running_var is None:
        return False
    weight = recording.parameters.get(made.arg("weight"))
    grouped = getattr(module, "transposed", False) and getattr(module, "groups", 1) > 1
    owners = [m for m in model.modules() if m._parameters.get("weight") is module.weight]
    return weight is not None and not grouped and len(owners) == 1 and norm != layer


@torch.no_grad()
def _fold(layer: nn.Module, norm: nn.Module) -> None:
    weight, bias = layer._parameters["weight"], layer._parameters["bias"]
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    assert weight is not None
    factor = torch.rsqrt(variance.double() + float(getattr(norm, "eps", 0)))
    if norm._parameters["weight"] is not None:
        factor = factor * norm.get_parameter("weight").double()
    shift = (0 if bias is None else bias.double()) - mean.double()
    offset: Tensor = shift * factor
    if norm._parameters["bias"] is not None:
        offset = offset + norm.get_parameter("bias").double()
    axis = next(dim for cls, dim in FOLDING.items() if isinstance(layer, cls))
    shape = [-1 if dim == axis else 1 for dim in range(weight.dim())]
    weight.copy_(weight.double() * factor.view(shape))
    trained = weight.requires_grad
    layer.register_parameter("bias", nn.Parameter(offset.to(weight.dtype), requires_grad=trained))
