"""A training loop that the examples share: Adam, one cycle of the learning rate, one seed."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from samples import Data, Split
from torch import Tensor, nn

#: A further term of the loss, from the number of the epoch.
Penalty = Callable[[int], Tensor]

BATCH = 64


def steps_of(data: Data, epochs: int) -> int:
    """Return how many steps a training takes."""
    return epochs * (len(data.train) // BATCH)


def train(
    model: nn.Module,
    data: Data,
    epochs: int,
    lr: float,
    *,
    seed: int,
    groups: Iterable[dict[str, Any]] | None = None,
    penalty: Penalty | None = None,
) -> None:
    """Train a classifier; learning rates rise for a tenth of the steps, then fall to 0.

    Args:
        lr: the highest learning rate of all groups that do not say otherwise.
        seed: of the order of samples and of dropout.
        groups: what the optimizer trains; all parameters, with weight decay, if not given.
        penalty: added to the cross entropy.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    everything = {"params": list(model.parameters()), "weight_decay": 1e-4}
    optimizer = torch.optim.Adam(list(groups or [everything]), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [group["lr"] for group in optimizer.param_groups],
        steps_of(data, epochs),
        pct_start=0.1,
        cycle_momentum=False,
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    model.train()
    for epoch in range(epochs):
        for rows in data.train.batches(BATCH, generator):
            loss = criterion(model(data.train.x[rows]), data.train.y[rows])
            if penalty is not None:
                loss = loss + penalty(epoch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def accuracy(model: nn.Module, split: Split) -> float:
    """Return the share of samples classified rightly, in per cent."""
    model.eval()
    batches = zip(split.x.split(256), split.y.split(256), strict=True)
    right = torch.cat([model(x).argmax(1) == y for x, y in batches])
    return 100 * right.double().mean().item()
