"""MODEL on the command line: a zoo name, ``package.module:factory`` or ``file.py:factory``."""

import importlib
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from hwcost.errors import TraceError, UnknownName, did_you_mean, suggestion


def resolve(text: str, inputs: Sequence[str] = ()) -> Any:
    """Return the model that a text names, with its example input where it has one.

    Args:
        inputs: shapes such as ``3x32x32`` or ``128:int64``, without the batch, which is 1; they
            take the place of the model's own example.

    Raises:
        UnknownName: no such model, file, module or factory.
        TraceError: the factory raised, or returned something that is not a model.
    """
    examples = [parse_input(one) for one in inputs]
    model = _made(text) if ":" in text else _of_the_zoo(text)
    if not examples and not isinstance(model, tuple):
        raise TraceError(f"{text} comes without an example input; give --input 3x32x32 or the like")
    if not examples:
        return model
    module = model[0] if isinstance(model, tuple) else model
    tensors = tuple(_tensor(module, shape, dtype) for shape, dtype in examples)
    return module, tensors[0] if len(tensors) == 1 else tensors


def resolve_all(models: Sequence[str], inputs: Sequence[str] | None) -> dict[str, Any]:
    """Return name -> model; two models of one name are told apart by what was typed.

    Networks of the zoo with their own input stay names.
    """
    from hwcost.reports_models import zoo_names

    names, own = [model_name(model) for model in models], set() if inputs else {*zoo_names()}
    return {
        model if names.count(name) > 1 else name: (
            model if model in own else resolve(model, inputs or ())
        )
        for model, name in zip(models, names, strict=True)
    }


def model_name(text: str) -> str:
    """Return what reports call the model: ``net.py:make_net`` is ``make_net``."""
    return text.rpartition(":")[2]


def parse_input(text: str) -> tuple[tuple[int, ...], str]:
    """Return shape and dtype (empty for the model's own) of ``3x32x32`` or ``128:int64``.

    Raises:
        TraceError: the text is neither.
    """
    found = re.fullmatch(r"(\d{1,9}(?:[x,]\d{1,9})*)(?::(\w+))?", text.strip())
    shape = tuple(int(n) for n in re.split("[x,]", found.group(1))) if found else ()
    if found is None or 0 in shape:
        raise TraceError(f"--input is {text!r}; expected a shape such as 3x32x32 or 128:int64")
    return shape, found.group(2) or ""


def parse_mapping(pairs: Sequence[str], engine: str | None) -> str | dict[str, str] | None:
    """Return ``layer=engine`` pairs as a mapping, or one engine for all layers.

    Raises:
        UnknownName: a pair has no ``=``, or both are given.
    """
    if engine is not None and pairs:
        raise UnknownName("--engine places all layers and --map some; give one of them")
    for pair in pairs:
        if "=" not in pair:
            raise UnknownName(f"--map is {pair!r}; expected layer=engine")
    return engine if engine is not None else dict(p.rsplit("=", 1) for p in pairs) or None


def _tensor(module: Any, shape: tuple[int, ...], dtype: str) -> Any:
    import torch

    parameter = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    kind = getattr(torch, dtype, None) if dtype else parameter.dtype
    if not isinstance(kind, torch.dtype):
        raise TraceError(f"--input: no dtype {dtype!r}; expected one such as int64 or float32")
    return torch.zeros(1, *shape, dtype=kind, device=parameter.device)


def _of_the_zoo(name: str) -> Any:
    from hwcost import zoo
    from hwcost.reports_models import zoo_names

    names = zoo_names()
    if name in names:
        return getattr(zoo, name)()
    if name.endswith(".py"):
        raise UnknownName(f"{name!r} names no model; write {name}:factory")
    hint = suggestion(name, names)
    raise UnknownName(
        f"no model {name!r}{hint} (your own: file.py:factory or package.module:factory)"
    )


def _made(text: str) -> Any:
    """The model of ``file.py:factory`` or ``package.module:factory``."""
    place, _, name = text.rpartition(":")
    found = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    value: Any = found
    for part in name.split("."):
        if not hasattr(value, part):
            public = [n for n in vars(found) if not n.startswith("_")]
            raise UnknownName(f"{place} has no {name!r}{did_you_mean(name, public)}")
        value = getattr(value, part)
    return _checked(_called(value, text), text)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UnknownName(f"no file {str(path)!r}")
    # Where the file's own imports look first, as if it were run.
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A module that is there already, such as torch for a file torch.py, stays what it is.
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise TraceError(f"{path} does not load: {_said(error)}") from error
    return module


def _load_module(name: str) -> ModuleType:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise UnknownName(
                f"no module {name!r} (a file is named as path/file.py:factory)"
            ) from None
        raise TraceError(f"{name} does not load: {_said(error)}") from error
    except Exception as error:
        raise TraceError(f"{name} does not load: {_said(error)}") from error


def _called(value: Any, text: str) -> Any:
    """What a factory returns; a module, or a pair, is itself."""
    from torch import nn

    if isinstance(value, nn.Module) or not callable(value):
        return value
    try:
        return value()
    except Exception as error:
        hint = "; a factory is called without arguments" if _lacks_arguments(error) else ""
        raise TraceError(f"{text} raised {_said(error)}{hint}") from error


def _lacks_arguments(error: Exception) -> bool:
    return isinstance(error, TypeError) and "required positional argument" in str(error)


def _checked(model: Any, text: str) -> Any:
    from torch import nn

    module = model[0] if isinstance(model, tuple) and len(model) == 2 else model
    if not isinstance(module, nn.Module):
        found = type(model).__name__
        raise TraceError(f"{text} gives {found!r}; expected an nn.Module or (nn.Module, example)")
    return model


def _said(error: BaseException) -> str:
    """An exception on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
