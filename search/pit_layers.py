"""Which layers PIT may search."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from hwcost.errors import SearchError, UnknownName, did_you_mean
from hwcost.search.channels import Axis
from hwcost.search.layers import PLAIN


@dataclass(frozen=True)
class Selection:
    """Layers left out by name or by class; without ``autoconvert`` only PIT's own are in.

    Attributes:
        names: module paths; of a container, all that is in it.
        types: classes.
        autoconvert: whether ordinary layers are searched too.
    """

    names: Sequence[str] = ()
    types: Sequence[type[nn.Module]] = ()
    autoconvert: bool = True

    def check(self, model: nn.Module) -> None:
        """Refuse what is not a module of the model, or not a class.

        Raises:
            UnknownName: no module has an excluded name.
            SearchError: an excluded type is no class.
        """
        if isinstance(self.names, str):
            raise SearchError(f"exclude_names is {self.names!r}; expected a list of names")
        known = {path for path, _ in model.named_modules() if path}
        for name in self.names:
            if name not in known:
                raise UnknownName(f"exclude_names: no layer {name!r}{did_you_mean(name, known)}")
        for cls in self.types:
            if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
                raise SearchError(f"exclude_types: {cls!r} is no class of modules")

    def takes(self, path: str, module: nn.Module) -> bool:
        """Whether a layer may be searched."""
        if any(path == name or path.startswith(f"{name}.") for name in self.names):
            return False
        if isinstance(module, tuple(self.types)):
            return False
        return self.autoconvert or isinstance(module, tuple(PLAIN))

    def takes_all(self, axis: Axis, model: nn.Module) -> bool:
        """Whether all layers that make some channels may be searched."""
        paths = [layer_of(name) for name in axis.producers]
        return all(self.takes(path, model.get_submodule(path)) for path in paths)

    def why(self) -> str:
        """Return what the choice leaves out, for messages."""
        if not self.autoconvert:
            return " (autoconvert_layers=False: only PITConv1d, PITConv2d, PITConv3d, PITLinear)"
        left_out = [*self.names, *(cls.__name__ for cls in self.types)]
        return f" (left out: {', '.join(left_out)})" if left_out else ""


def layer_of(weight: str) -> str:
    """Return the path of the layer that a weight belongs to, also one that is parametrized."""
    path, parametrized, _ = f".{weight}".partition(".parametrizations.")
    return (path if parametrized else path.rpartition(".")[0]).lstrip(".")
