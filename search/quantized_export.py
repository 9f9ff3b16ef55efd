"""Quantizers of an exported network: buffers of its modules, and the op that reads them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hwcost.recorder_quantize import fake_quantize
from hwcost.search.frames import Around, Frames
from hwcost.search.options import Option
from hwcost.search.quantize import BIAS, Grid, weight_grid
from hwcost.search.quantized_install import PointAction
from hwcost.search.quantized_now import Now
from hwcost.search.swap import AROUND, add_transform, owners, put_around

if TYPE_CHECKING:
    from hwcost.search.quantized import QuantizedMethod


@dataclass(frozen=True)
class Quantizer:
    """Rounds a parameter or a tensor of a module, at a scale that is the module's buffer.

    Attributes:
        scale: name of the buffer, of shape ``(1,)`` or ``(channels,)``.
        grids: one, or one for each channel.
        axis: of the channels.
        label: a name for recordings.
        engines: of each channel, or none.
        unit: of a sum, name of the buffer with what one of its units is worth.
        unit_axis: dimension of the sum's channels.
    """

    scale: str
    grids: tuple[Grid, ...]
    axis: int
    label: str
    engines: tuple[str, ...] = ()
    unit: str | None = None
    unit_axis: int = 0

    def __call__(self, module: Any, x: Tensor, /) -> Tensor:
        """Return it rounded."""
        bits, low, high = ([getattr(g, n) for g in self.grids] for n in ("bits", "low", "high"))
        scale, engines = module.get_buffer(self.scale), ",".join(self.engines)
        # In training sums are what torch adds up, as in a search.
        whole = self.unit is not None and not module.training
        unit = module.get_buffer(str(self.unit)) if whole else None
        codes = bits, low, high
        rounded: Tensor = fake_quantize(
            x, scale, *codes, self.axis, self.label, engines, unit, self.unit_axis
        )
        return rounded


@torch.no_grad()
def exported(method: "QuantizedMethod", model: nn.Module, search: nn.Module) -> nn.Module:
    """Put quantizers into a copy of the searched network, of the user's own classes.

    Args:
        model: the copy; its dead channels are gone.
        search: the searched network.
    """
    now = method.decided_now()
    chosen = method.chosen()
    for number in range(len(method.layers)):
        kept = method.kept(number)
        _export_weight(method, model, number, now, chosen[number], kept)
    _export_points(method, model, search, now)
    return model


def _export_weight(
    method: "QuantizedMethod",
    model: nn.Module,
    number: int,
    now: Now,
    options: Sequence[Option],
    kept: Tensor,
) -> None:
    weight = method.layers[number]
    places = torch.tensor([weight.options.index(option) for option in options])
    steps = now.scales[number].gather(1, places[:, None].to(now.scales[number].device))[:, 0]
    own = [options[i] for i in kept.tolist()]
    steps = steps[kept.to(steps.device)]
    if weight.layer.whole:
        own, steps = own[:1], steps[:1]
    engines = tuple(option.engine for option in own)
    quantizer = Quantizer(
        scale="",
        grids=tuple(weight_grid(option.bits) for option in own),
        axis=weight.layer.axis,
        label=weight.name,
        engines=engines if any(engines) else (),
    )
    _put(model, weight.name, steps, quantizer)
    if weight.layer.bias is not None and weight.layer.point >= 0:
        step = now.activations[weight.layer.point].scales[0]
        quantizer = Quantizer("", (BIAS,) * len(own), 0, weight.layer.bias)
        _put(model, weight.layer.bias, steps * step, quantizer)


def _put(model: nn.Module, name: str, scale: Tensor, quantizer: Quantizer) -> None:
    """Let all readers of a parameter see it rounded."""
    for module, attribute in owners(model, model.get_parameter(name)):
        buffer = _buffer(module, f"{attribute}_scale", scale)
        add_transform(module, attribute, replace(quantizer, scale=buffer))


def _buffer(module: nn.Module, name: str, value: Tensor) -> str:
    """Register a buffer under a name that is free; return the name."""
    while hasattr(module, name):
        name = f"_{name}"
    module.register_buffer(name, value.detach().clone())
    return name


def _export_points(
    method: "QuantizedMethod", model: nn.Module, search: nn.Module, now: Now
) -> None:
    frames = Frames()
    modules = dict(model.named_modules())
    for path, module in search.named_modules():
        around = module.__dict__.get(AROUND)
        if around is None or path not in modules:
            continue
        frames.functions = frames.functions or around.frames.functions
        put_around(modules[path], _around(method, modules[path], around, frames, now))


def _around(
    method: "QuantizedMethod", module: nn.Module, old: Around, frames: Frames, now: Now
) -> Around:
    new = Around(old.path, frames, old.root, old.opaque)
    new.calls = old.calls
    made: dict[tuple[int, str | None], Quantizer] = {}
    for training, actions in old.actions.items():
        for site, action in actions.items():
            if not isinstance(action, PointAction):
                continue
            key = action.number, action.weight
            if key not in made:
                made[key] = _point(method, module, action, now, len(made))
            new.actions[training][site] = made[key]
    return new


def _point(
    method: "QuantizedMethod", module: nn.Module, action: PointAction, now: Now, place: int
) -> Quantizer:
    how = now.activations[action.number]
    number = f"_{place}" if place else ""
    name = _buffer(module, f"scale{number}", how.scales[:1])
    label = method.plans[action.number].point.name
    unit = method.unit(action.weight, now)
    if unit is None:
        return Quantizer(name, how.grids[:1], 0, label)
    if unit.numel() > 1:
        unit = unit[method.kept(method.numbers[action.weight]).to(unit.device)]
    held, axis = _buffer(module, f"unit{number}", unit), method.sum_axis(action.weight)
    return Quantizer(name, how.grids[:1], 0, label, (), held, axis)
