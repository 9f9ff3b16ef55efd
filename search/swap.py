"""Modules of a copied model made searchable by changing their class, and back.

The new class is a subclass of the user's own: attributes, ``isinstance`` and names stay. A
parameter that a search changes is read through a property of that class, so that every reader
gets the changed one: the module's own forward, a functional call, code that asks for its dtype.
"""

import copy
import copyreg
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search.trained import Trained

#: Attribute of a swapped module: parameter name -> the transforms that its readers see, in order.
TRANSFORMS = "_search_transforms"

#: Attribute of a swapped module whose forward is replaced.
FORWARD = "_search_forward"

#: Attribute of a swapped module: what runs around its forward.
AROUND = "_search_around"


class Transform(Protocol):
    """What a search does to a parameter of a module before it is used."""

    def __call__(self, module: Any, parameter: Tensor, /) -> Tensor: ...


class Forward(Protocol):
    """What runs in place of a module's forward."""

    def __call__(self, module: Any, *args: Any, **kwargs: Any) -> Any: ...


class Around(Protocol):
    """What runs around a module's forward; ``inner`` is that, and takes the module first."""

    def __call__(
        self, module: Any, inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any: ...


def add_transform(module: nn.Module, name: str, transform: Transform) -> None:
    """Let every reader of a module's parameter see what ``transform`` makes of it."""
    transforms: dict[str, tuple[Transform, ...]] = dict(getattr(module, TRANSFORMS, {}))
    transforms[name] = (*transforms.get(name, ()), transform)
    module.__dict__[TRANSFORMS] = transforms
    _swap(module)


def replace_forward(module: nn.Module, forward: Forward) -> None:
    """Run ``forward(module, ...)`` in place of the module's own."""
    module.__dict__[FORWARD] = forward
    _swap(module)


def drop_forward(module: nn.Module) -> None:
    """Run the module's own forward again."""
    module.__dict__.pop(FORWARD, None)
    _swap(module)


def put_around(module: nn.Module, around: Around | None) -> None:
    """Run ``around`` around the module's forward, replaced or not; None for nothing."""
    module.__dict__.pop(AROUND, None)
    if around is not None:
        module.__dict__[AROUND] = around
    _swap(module)


def is_swapped(module: nn.Module) -> bool:
    """Whether the module's class is one that this file made."""
    return hasattr(type(module), "_search_base")


def user_forward(module: nn.Module) -> Callable[..., Any]:
    """Return the forward of the class that the module had before it was made searchable."""
    return user_class(module).forward


def user_class(module: nn.Module) -> type[nn.Module]:
    """Return the class that the module had before it was made searchable."""
    base: type[nn.Module] = getattr(type(module), "_search_base", type(module))
    return base


def restore(model: nn.Module) -> None:
    """Give every module its own class back; parameters are left as they are stored."""
    for module in model.modules():
        if is_swapped(module):
            module.__class__ = user_class(module)
            module.__dict__.pop(TRANSFORMS, None)
            module.__dict__.pop(FORWARD, None)
            module.__dict__.pop(AROUND, None)


def owners(model: nn.Module, tensor: Tensor) -> list[tuple[nn.Module, str]]:
    """Return every module that holds a parameter or buffer, and under which name."""
    return [
        (module, name)
        for module in model.modules()
        for name, own in (*module._parameters.items(), *module._buffers.items())
        if own is tensor
    ]


def copied(model: nn.Module) -> nn.Module:
    """Return a deep copy of a model.

    Raises:
        SearchError: torch cannot copy it; weights under the older ``torch.nn.utils.weight_norm``
            or ``spectral_norm`` are the usual reason.
    """
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        hooked = [name for name, m in model.named_modules() if m._forward_pre_hooks]
        where = f", perhaps because of a hook of layer {hooked[0]!r}" if hooked else ""
        raise SearchError(
            f"{type(model).__name__} cannot be copied{where}; torch.nn.utils.weight_norm and "
            "spectral_norm have successors in torch.nn.utils.parametrizations that can"
        ) from error


def refuse_searched(model: nn.Module) -> None:
    """Refuse what is no model, and one that holds a search already.

    Raises:
        SearchError: it says which.
    """
    if not isinstance(model, nn.Module):
        found = f"the class {model.__name__!r}" if isinstance(model, type) else type(model).__name__
        raise SearchError(f"a search needs an nn.Module; got {found}")
    for path, module in model.named_modules():
        if is_swapped(module) or isinstance(module, Trained):
            where = f"its layer {path!r}" if path else type(module).__name__
            raise SearchError(f"the model is already searched: {where}; pass the original")


def _swap(module: nn.Module) -> None:
    how = _how(module)
    module.__class__ = _subclass(*how) if how[1] or how[2] else how[0]


def _how(module: nn.Module) -> tuple[type[nn.Module], tuple[str, ...], bool]:
    """Return the user's class, the parameters with transforms, and whether forward changes."""
    names = tuple(sorted(getattr(module, TRANSFORMS, {})))
    own = module.__dict__
    return user_class(module), names, FORWARD in own or AROUND in own


#: Classes made so far: equal changes of a class give one class.
_MADE: dict[tuple[type[nn.Module], tuple[str, ...], bool], type[nn.Module]] = {}


def _subclass(base: type[nn.Module], names: tuple[str, ...], forward: bool) -> type[nn.Module]:
    key = base, names, forward
    if key not in _MADE:
        _MADE[key] = _make(*key)
    return _MADE[key]


def _make(base: type[nn.Module], names: tuple[str, ...], forward: bool) -> type[nn.Module]:
    members: dict[str, Any] = {name: _parameter(name) for name in names}
    members |= {"_search_base": base, "__reduce_ex__": _reduce_ex, "__module__": base.__module__}
    members |= {"__doc__": base.__doc__, "__qualname__": base.__qualname__}
    if forward:
        members["forward"] = _forward
    return type(base.__name__, (base,), members)


def _parameter(name: str) -> property:
    def read(self: nn.Module) -> Tensor | None:
        held = self._parameters if name in self._parameters else self._buffers
        value: Tensor | None = held[name]
        transforms: Mapping[str, tuple[Transform, ...]] = self.__dict__[TRANSFORMS]
        # Who counts the model's own torch calls may not see these.
        with torch._C.DisableTorchFunction():
            for transform in transforms[name]:
                value = None if value is None else transform(self, value)
        return value

    return property(read)


def _forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    inner = self.__dict__.get(FORWARD) or user_forward(self)
    around = self.__dict__.get(AROUND)
    return inner(self, *args, **kwargs) if around is None else around(self, inner, args, kwargs)


def _reduce_ex(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
    """Pickle by the user's class, which can be imported; ours is made again."""
    how = base, *_ = _how(self)
    reduced: tuple[Any, ...] = tuple(base.__reduce_ex__(self, protocol))
    make, args, *rest = reduced
    if make is not copyreg.__newobj__ or args != (type(self),):  # type: ignore[attr-defined]
        return _remade, (make, args, how), *rest
    return _new, how, *rest


def _new(base: type[nn.Module], names: tuple[str, ...], forward: bool) -> nn.Module:
    cls = _subclass(base, names, forward)
    return cls.__new__(cls)


def _remade(make: Callable[..., nn.Module], args: Any, how: Any) -> nn.Module:
    module = make(*args)
    module.__class__ = _subclass(*how)
    return module
