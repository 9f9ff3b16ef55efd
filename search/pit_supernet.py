"""PITSuperNet: branches are chosen while masks shrink the layers inside them."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search.base import Search
from hwcost.search.layers import PLAIN
from hwcost.search.method import Method
from hwcost.search.pit import PITMethod
from hwcost.search.supernet import SuperNetMethod

#: What ``regularizer`` stands for.
REGULARIZERS = {"size": "counts:params", "macs": "counts:macs"}


class PITSuperNet(Search):
    """SuperNet and PIT at once; channels that branches share are shared across choices.

    Args:
        model, example, cost, input_shape, input_example, seed: as for ``Search``.
        regularizer: ``"size"`` or ``"macs"``, in place of a cost.
        autoconvert_layers: False searches only ``PITConv1d`` ... ``PITLinear`` in the branches,
            and no channels at all if there are none.
        single_path: as for ``SuperNet``.
        options: further arguments of ``PIT``.

    Raises:
        SearchError: the model has no choice, or ``regularizer`` is unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Any = None,
        *,
        cost: Any = None,
        regularizer: str | None = None,
        input_shape: Sequence[Any] | None = None,
        input_example: Any = None,
        seed: int = 0,
        autoconvert_layers: bool = True,
        single_path: bool = False,
        **options: Any,
    ) -> None:
        methods: list[Method] = [SuperNetMethod(single_path=single_path)]
        own = isinstance(model, nn.Module) and any(type(m) in PLAIN for m in model.modules())
        if autoconvert_layers or own:
            methods.append(PITMethod(autoconvert_layers=autoconvert_layers, **options))
        inputs = {"input_shape": input_shape, "input_example": input_example}
        chosen = _cost(cost, regularizer)
        super().__init__(model, example, methods, cost=chosen, seed=seed, **inputs)

    def get_regularization_loss(self) -> Tensor:
        """Return ``cost``."""
        return self.cost

    def arch_export(self) -> nn.Module:
        """Return ``export()``."""
        return self.export()


def _cost(cost: Any, regularizer: str | None) -> Any:
    if regularizer is None:
        return "counts:params" if cost is None else cost
    if cost is not None:
        raise SearchError("give one of cost=... and regularizer=...")
    if regularizer not in REGULARIZERS:
        known = " or ".join(map(repr, REGULARIZERS))
        raise SearchError(f"regularizer is {regularizer!r}; expected {known}")
    return REGULARIZERS[regularizer]
