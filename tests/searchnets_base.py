"""How the nets of the search suites are made: registered by name, with nothing at its default."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

#: A net in training mode, and an input: a tensor, a tuple of arguments, or a dict of keywords.
Subject = tuple[nn.Module, Any]
Nets = dict[str, Callable[[], Subject]]

Shape = tuple[int, ...]

#: Size of an image, without the batch; that of a sequence.
IMAGE = (3, 8, 8)
SERIES = (4, 24)


def add(nets: Nets, name: str, make: Callable[[], nn.Module], example: Callable[[], Any]) -> None:
    """Register a net: ``make`` draws its weights from torch's generator."""

    def subject() -> Subject:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(name))
            return stirred(make()), example()

    assert name not in nets, name
    nets[name] = subject


def registered(nets: Nets) -> Callable[..., Callable[[type[nn.Module]], type[nn.Module]]]:
    """Return a decorator of classes of nets that is given the shapes of their inputs."""

    def net(*shapes: Shape, **named: Shape) -> Callable[[type[nn.Module]], type[nn.Module]]:
        def register(cls: type[nn.Module]) -> type[nn.Module]:
            add(nets, cls.__name__, cls, lambda: example(*shapes, **named))
            return cls

        return register

    return net


def example(*shapes: Shape, **named: Shape) -> Any:
    """Return random inputs of these shapes, the batch of 2 in front."""
    draw = torch.Generator().manual_seed(7)
    tensors = [torch.randn(2, *shape, generator=draw) for shape in (*shapes, *named.values())]
    if named:
        return dict(zip(named, tensors, strict=True))
    return tensors[0] if len(shapes) == 1 else tuple(tensors)


def run(model: nn.Module, given: Any) -> Any:
    """Run a model on an example as ``Subject`` has it."""
    if isinstance(given, dict):
        return model(**given)
    return model(*given) if isinstance(given, tuple) else model(given)


@torch.no_grad()
def stirred(model: nn.Module) -> nn.Module:
    """Draw biases, scales and statistics so that a channel that leaks past its mask shows."""
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[2].startswith("bias"):
            parameter.normal_(0, 0.5)
        elif parameter.dim() < 2:
            parameter.uniform_(0.4, 1.4)
        else:
            parameter.mul_(1.7)  # from a variance of 1 / 3 of the inputs to 1
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(1, 2)
        elif name.endswith("running_var"):
            buffer.uniform_(0.3, 3)
    return model


def conv_bn(cin: int, cout: int, kernel: int = 3, **options: Any) -> nn.Sequential:
    """A 2-D convolution that keeps the size, batch normalisation, ReLU."""
    conv = nn.Conv2d(cin, cout, kernel, padding=kernel // 2, bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), nn.ReLU())


def pooled(x: Tensor) -> Tensor:
    """Mean over positions, channels stay."""
    return x.flatten(2).mean(2)
