"""The parameters of a search: those of the network, and those of its decisions."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from hwcost.errors import SearchError
from hwcost.search.method import Method


class Trained(nn.Module):
    """A network and methods that decide about it, for optimizers.

    Attributes:
        model: the searched network.
        methods: what decides.
    """

    model: nn.Module
    methods: nn.ModuleList

    def __init__(self) -> None:
        super().__init__()
        self._trainable: set[str] = set()

    def each_method(self) -> Iterator[Method]:
        """Yield the methods."""
        for method in self.methods:
            assert isinstance(method, Method)
            yield method

    def named_nas_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the decisions' parameters."""
        for number, method in enumerate(self.each_method()):
            for name, parameter in method.knobs().items():
                yield f"methods.{number}.{name}", parameter

    def nas_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the decisions' parameters."""
        return (parameter for _, parameter in self.named_nas_parameters())

    def named_net_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield all other parameters."""
        decisions = {id(parameter) for parameter in self.nas_parameters()}
        return ((n, p) for n, p in self.named_parameters() if id(p) not in decisions)

    def net_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the network's parameters."""
        return (parameter for _, parameter in self.named_net_parameters())

    def param_groups(self, lr: float, nas_lr: float, **options: Any) -> list[dict[str, Any]]:
        """Return an optimizer's groups; decisions have their own rate and no weight decay.

        Nor have learned scales, which are logarithms.

        Args:
            lr: the network's learning rate.
            nas_lr: the decisions' learning rate.
            options: further options of the network's group.
        """
        scales = [p for method in self.each_method() for p in method.undecayed()]
        apart = {id(p) for p in scales}
        weights = [p for p in self.net_parameters() if id(p) not in apart]
        net = {"params": weights, "lr": lr, **options}
        nas = {"params": list(self.nas_parameters()), "lr": nas_lr, "weight_decay": 0.0}
        if not scales:
            return [net, nas]
        return [net, nas, {"params": scales, "lr": lr, **options, "weight_decay": 0.0}]

    def train_nas_only(self) -> None:
        """Let the optimizer change decisions only."""
        self._train(net=False, nas=True)

    def train_net_only(self) -> None:
        """Let the optimizer change the network only."""
        self._train(net=True, nas=False)

    def train_net_and_nas(self) -> None:
        """Let the optimizer change both, as at the start."""
        self._train(net=True, nas=True)

    def _train(self, net: bool, nas: bool) -> None:
        for method in self.each_method():
            for name, parameter in method.knobs().items():
                parameter.requires_grad_(nas and method.trains(name))
            for scale in method.undecayed():
                scale.requires_grad_(net)
        for name, parameter in self.model.named_parameters():
            if name in self._trainable:
                parameter.requires_grad_(net)

    def refuse_nan(self) -> None:
        """Refuse to go on from decisions that are NaN.

        Raises:
            SearchError: it names one.
        """
        for name, parameter in self.named_nas_parameters():
            if not bool(parameter.detach().isfinite().all()):
                raise SearchError(
                    f"decision {name!r} is NaN or infinite; the loss of an earlier step was so too"
                )
