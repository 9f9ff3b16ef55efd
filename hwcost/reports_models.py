"""What users call a model - zoo names, modules, pairs, tables - as named op tables."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from hwcost.errors import TraceError, UnknownName, suggestion
from hwcost.tracing import trace
from hwcost.workload import Workload


@dataclass(frozen=True, eq=False)
class Named:
    """A model that is traced once, when its op table is first read.

    Attributes:
        zoo: its name in the zoo, empty where it is not from there.
    """

    name: str
    model: Any
    example: Any = None
    input_shape: Any = None
    zoo: str = ""

    @cached_property
    def workload(self) -> Workload:
        """The op table.

        Raises:
            TraceError: the model does not run on the example, or there is none.
        """
        if isinstance(self.model, Workload):
            return self.model
        try:
            if self.example is None and self.input_shape is not None:
                return trace(self.model, input_shape=self.input_shape)
            return trace(self.model, self.example)
        except TraceError as error:
            raise TraceError(f"{self.name}: {error}") from error.__cause__


def named_models(models: Any, input_shape: Any = None) -> list[Named]:
    """Return models with names: of the zoo, of a dict's keys, or of their classes.

    Args:
        models: a zoo name, a module, a ``(module, example)`` pair, a Workload, or a sequence of
            these, or a dict from names to them.

    Raises:
        UnknownName: the zoo has no such model.
    """
    if isinstance(models, Mapping):
        found = [_one(model, str(name), input_shape) for name, model in models.items()]
    elif isinstance(models, str | nn.Module | Workload) or _is_pair(models):
        found = [_one(models, None, input_shape)]
    else:
        found = [_one(model, None, input_shape) for model in models]
    return list(_distinct(found))


def zoo_names() -> list[str]:
    """Return the names of the models that come with hwcost."""
    from hwcost import zoo

    public = {n: f for n, f in vars(zoo).items() if inspect.isfunction(f) and not n.startswith("_")}
    return [name for name, function in public.items() if function.__module__ == zoo.__name__]


def _is_pair(model: Any) -> bool:
    """Whether ``model`` is (module, example) rather than a sequence of two models."""
    if not (isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], nn.Module)):
        return False
    return not isinstance(model[1], str | nn.Module | Workload) and not _is_pair(model[1])


def _one(model: Any, name: str | None, input_shape: Any) -> Named:
    if isinstance(model, str):
        return _of_the_zoo(model, name)
    example = None
    if _is_pair(model):
        model, example = model
    if isinstance(model, Workload):
        return Named(name or "workload", model)
    if isinstance(model, nn.Module):
        return Named(name or type(model).__name__, model, example, input_shape)
    raise TraceError(
        f"{type(model).__name__} is not a model; expected a zoo name, an nn.Module,"
        " a (module, example) pair or a Workload"
    )


def _of_the_zoo(model: str, name: str | None) -> Named:
    from hwcost import zoo

    names = zoo_names()
    if model not in names:
        hint = suggestion(model, names)
        raise UnknownName(f"no model {model!r} in the zoo{hint}")
    module, example = getattr(zoo, model)()
    return Named(name or model, module, example, zoo=model)


def _distinct(models: Sequence[Named]) -> Iterator[Named]:
    """The models, the second of a name numbered."""
    seen: dict[str, int] = {}
    for one in models:
        seen[one.name] = seen.get(one.name, 0) + 1
        number = seen[one.name]
        name = one.name if number == 1 else f"{one.name} {number}"
        yield Named(name, one.model, one.example, one.input_shape, one.zoo)
