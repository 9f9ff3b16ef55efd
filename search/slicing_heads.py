"""What a user's own attention says of its heads, after some of them were removed."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from hwcost.recorder_values import without_compiler
from hwcost.search.channels_values import Channels

#: Names of attributes: how many heads there are, how many features each has, and all together.
_COUNT = re.compile(
    r"^((n|nb|num|number)_?(of_)?)?((attention|attn|kv|key_value|query|q)_?)?heads?$"
)
_SIZE = re.compile(r"^(\w+_)?heads?_?(dim|size|features|channels|width)$|^(d|dim|size)_?heads?$")
_WHOLE = re.compile(r"^(all_head_size|(inner|embed|attn|attention|qkv?|total|proj)_?(dim|size))$")


def set_heads(module: nn.Module, path: str, channels: Channels, keep: Tensor) -> None:
    """Set a module's numbers of heads and of their features to those of its layers.

    Args:
        module: of a class of the user's.
        path: its path.
        channels: of the model.
        keep: bool, shape ``(n_classes + 1,)``; the last stands for -1.
    """
    sizes = {name: value for name, value in vars(module).items() if _is_size(name, value)}
    if not any(_COUNT.match(name) or _SIZE.match(name) for name in sizes):
        return
    tables = list(_made(module, path, channels, keep))
    found: dict[str, int] = {}
    divided: list[Tensor] = []
    for name, value in sizes.items():
        rule = _heads if _COUNT.match(name) else _features if _SIZE.match(name) else None
        left = [] if rule is None else [(rule(table, value, keep), table) for table in tables]
        fitting = {count for count, _ in left if count is not None}
        if len(fitting) == 1:
            found[name] = fitting.pop()
            divided += [table for count, table in left if count is not None]
    found |= _wholes(sizes, divided, keep)
    for name, value in found.items():
        setattr(module, name, value)


def _is_size(name: str, value: object) -> bool:
    named = _COUNT.match(name) or _SIZE.match(name) or _WHOLE.match(name)
    return named is not None and type(value) is int and value > 1


def _made(module: nn.Module, path: str, channels: Channels, keep: Tensor) -> Iterable[Tensor]:
    """Yield the classes of what each layer in a module makes, where some of them go."""
    for name, _ in module.named_parameters():
        full = without_compiler(f"{path}.{name}".lstrip("."))
        for cut in channels.cuts.get(full, ()):
            if cut.role == "out" and not bool(keep[cut.classes].all()):
                yield cut.classes


def _heads(classes: Tensor, count: int, keep: Tensor) -> int | None:
    """Return how many of ``count`` heads are left, None if these are no such heads."""
    for packed in (1, 2, 3):
        if len(classes) % (packed * count) == 0 and len(classes) > packed * count:
            table = classes.view(packed, count, -1)
            if bool((table == table[:1, :, :1]).all()):
                return int(keep[table[0, :, 0]].sum())
    return None


def _features(classes: Tensor, size: int, keep: Tensor) -> int | None:
    """Return how many features are left of each head, None if these are no such features."""
    if len(classes) % size or len(classes) == size:
        return None
    table = classes.view(-1, size)
    return int(keep[table[0]].sum()) if bool((table == table[:1]).all()) else None


def _wholes(sizes: Mapping[str, int], tables: Iterable[Tensor], keep: Tensor) -> dict[str, int]:
    """Return what is left of the numbers of features of all heads together."""
    left = {len(classes): int(keep[classes].sum()) for classes in tables}
    return {
        name: left[value] for name, value in sizes.items() if _WHOLE.match(name) and value in left
    }
