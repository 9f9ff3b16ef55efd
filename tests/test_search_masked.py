"""Weights that are masked, or not trained at all, in searches and in structured pruning."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwcost import trace, zoo
from hwcost.search import PIT, PruneCell, Pruner, Search, WeightPruning, prune_weights

READER = "blocks.0.layers.1.conv"


class Fixed(nn.Module):
    """A convolution whose weight is a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.register_buffer("filters", torch.randn(6, 8, 3, 3))
        self.out = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        filters = self.get_buffer("filters")
        out: Tensor = self.out(F.conv2d(self.conv(x).sigmoid(), filters).mean((2, 3)))
        return out


class OwnMask(nn.Module):
    """A layer that masks its own weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.weight = nn.Parameter(torch.randn(4, 8))
        self.register_buffer("mask", (torch.rand(4, 8) < 0.5).float())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.first(x).sigmoid(), self.weight * self.get_buffer("mask"))


def decide(search: Search) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in search.nas_parameters():
            parameter.copy_((torch.rand(parameter.shape, generator=generator) < 0.6).float())


def difference(search: Search, x: Tensor) -> float:
    search.eval()
    with torch.no_grad():
        return float((search(x) - search.export().eval()(x)).abs().max())


def test_channels_that_a_fixed_weight_reads_can_be_searched() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 9, 9)
    search = PIT(Fixed(), x)
    decide(search)
    assert difference(search, x) < 1e-5
    assert search.export().get_buffer("filters").shape[1] < 8


def test_channels_that_a_masked_weight_reads_can_be_searched() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5)
    search = PIT(OwnMask(), x)
    decide(search)
    assert difference(search, x) < 1e-5
    exported = search.export()
    assert exported.get_buffer("mask").shape == exported.get_parameter("weight").shape != (4, 8)


def test_a_mask_takes_no_part_in_the_gradient_of_channels() -> None:
    torch.manual_seed(0)
    x, model = torch.randn(2, 5), OwnMask()
    with torch.no_grad():
        model.get_buffer("mask").fill_(1)
    plain = nn.Sequential(copy.deepcopy(model.first), nn.Sigmoid(), nn.Linear(8, 4, bias=False))
    with torch.no_grad():
        plain.get_parameter("2.weight").copy_(model.weight)
    found = []
    nets: tuple[nn.Module, ...] = (model, plain)
    for net in nets:
        search = PIT(net, x)
        search(x).square().sum().backward()
        grads = [p.grad for p in search.nas_parameters() if p.grad is not None]
        found.append(torch.cat([grad.flatten() for grad in grads]))
    torch.testing.assert_close(*found)


def test_a_net_of_pruned_weights_can_be_searched() -> None:
    model, x = zoo.resnet8()
    prune_weights(model, PruneCell(threshold=0.5, prune_filler="Magnitude"))
    search = PIT(model, x)
    decide(search)
    assert difference(search, x) < 1e-5
    left = WeightPruning.of(search.export()).sparsity()
    assert all(0.2 < share < 0.8 for share in left.values())


def test_units_of_a_net_of_pruned_weights_take_their_masks_along() -> None:
    torch.manual_seed(0)
    model, x = zoo.resnet8()
    pruning = prune_weights(model, PruneCell(threshold=0.5, prune_filler="Magnitude"))
    full = copy.deepcopy(model).eval()
    Pruner(model, x).prune_model("blocks.0.layers.0.conv", range(1, 16))
    with torch.no_grad():
        full.get_parameter(f"{READER}.parametrizations.weight.original")[:, 1:] = 0
        torch.testing.assert_close(model.eval()(x), full(x))
    pruning.remove()
    assert trace(model, x).layers == trace(full, x).layers
