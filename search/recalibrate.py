"""Statistics of batch normalisation measured anew, without training."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hwcost.errors import SearchError


@torch.no_grad()
def recalibrate_bn(model: nn.Module, loader: Iterable[Any], batches: int | None = None) -> None:
    """Set the running statistics of every batch normalisation to their mean over a loader.

    Channels that a search removes leave the layers after them with other statistics; this
    re-estimates them from inputs alone. Weights, modes and the loader's labels are left alone.

    Args:
        model: changed in place; a model without batch normalisation is left as it is.
        loader: yields inputs, or tuples and dicts whose first entry is the input.
        batches: use only so many.

    Raises:
        SearchError: the loader yields nothing.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    seen = 0
    with _measuring(model, norms):
        for batch in islice(loader, batches):
            model(_input_of(batch).to(device))
            seen += 1
        if not seen:
            raise SearchError("the loader yielded no batch to measure statistics on")


@contextmanager
def _measuring(model: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    """Let norms alone run in training mode, with cumulative means, in the body."""
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.training = True
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode


def _input_of(batch: Any) -> Tensor:
    while not isinstance(batch, Tensor):
        batch = next(iter(batch.values())) if isinstance(batch, Mapping) else batch[0]
    return batch
