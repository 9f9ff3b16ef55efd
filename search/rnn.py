"""Recurrent layers that ignore dead channels of their input."""

from typing import Any

from torch import Tensor

from hwcost.search.swap import user_forward
from hwcost.search.weights import Mask


class MaskedInput:
    """Forward of a module on its first argument with dead features set to 0.

    A recurrent layer reads its weights as one list, so the input is masked in their place.

    Args:
        mask: over the last dimension of the input.
    """

    def __init__(self, mask: Mask) -> None:
        self.mask = mask

    def __call__(self, module: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        own = user_forward(module)
        if isinstance(x, Tensor):
            return own(module, x * self.mask(x), *args, **kwargs)
        data = x.data * self.mask(x.data)  # a packed sequence
        return own(module, x._replace(data=data), *args, **kwargs)
