"""Weight pruning as a file in the way of N2D2 says it: a section for each layer."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from hwcost.errors import SearchError, did_you_mean, suggestion
from hwcost.search.weight_pruning_cell import PruneCell, PruneMode
from hwcost.search.weight_pruning_handle import WeightPruning
from hwcost.search.weight_pruning_inifile import Entry, IniFile, Section, read_ini
from hwcost.search.weight_pruning_install import prune_weights
from hwcost.search.weight_pruning_layers import find_weights

#: Key below ``QWeight.`` -> the argument of ``PruneCell`` and its type.
KEYS: dict[str, tuple[str, str]] = {
    "PruningMode": ("prune_mode", "name"),
    "PruningFiller": ("prune_filler", "name"),
    "Threshold": ("threshold", "number"),
    "Delta": ("delta", "number"),
    "StartThreshold": ("start", "number"),
    "StepSizeThreshold": ("stepsize", "whole number"),
    "GammaThreshold": ("gamma", "number"),
}

READERS: dict[str, Callable[[str], str | float]] = {
    "name": str,
    "number": float,
    "whole number": int,
}

PRUNING = ("QWeight", *(f"QWeight.{key}" for key in KEYS))

#: Keys of N2D2's convolutions, deconvolutions and Fc that say nothing of pruning; what follows
#: a ``.`` or a ``(`` in a key is not looked at.
OTHER = (
    *("Input", "Type", "Model", "DataType", "ConfigSection", "NbOutputs", "NbChannels"),
    *("KernelDims", "KernelWidth", "KernelHeight", "KernelDepth", "KernelSize"),
    *("SubSampleDims", "SubSampleX", "SubSampleY", "SubSample"),
    *("StrideDims", "StrideX", "StrideY", "Stride"),
    *("PaddingDims", "PaddingX", "PaddingY", "Padding"),
    *("DilationDims", "DilationX", "DilationY", "Dilation"),
    *("ActivationFunction", "Mapping", "WeightsSharing", "BiasesSharing", "NoBias", "Normalize"),
    *("WeightsFiller", "BiasFiller", "WeightsSolver", "BiasSolver", "Solvers", "BackPropagate"),
    *("WeightsExportFormat", "WeightsExportFlip", "OutputsRemap", "DropConnect", "WithLoss"),
    *("QAct", "QActSolver", "QWeightSolver"),
)

#: What N2D2 calls layers that have weights; a section of another type asks for nothing.
TYPES = ("Conv", "Deconv", "Fc")

#: Sections of N2D2 that are no layers, or stand below one.
NO_LAYER = re.compile(r"database|(sp|env)(\..*)?|.*\.Target(\..*)?")


def prune_from_ini(
    model: nn.Module, path: str | os.PathLike[str], *, generator: torch.Generator | None = None
) -> WeightPruning:
    """Prune the layers that a file names, in place.

    A section is named like a layer of the model. ``QWeight=Prune`` turns pruning on, the keys
    below it set it; ``ConfigSection`` brings in the keys of other sections, and a section's own
    go before them. Defaults are N2D2's: without ``QWeight.PruningMode``, nothing is pruned.

    Args:
        model: changed in place.
        path: of the file.
        generator: for the filler Random; torch's own without one.

    Raises:
        SearchError: the file cannot be read or has a mistake, at ``file:line``; or a weight
            cannot be pruned. The model is as it was then.
    """
    file = read_ini(path)
    layers = [name for weight in find_weights(model) for name in weight.names]
    classes = {name: type(module).__name__ for name, module in model.named_modules()}
    included = file.included()
    cells: dict[str, PruneCell] = {}
    for section in list(file.sections.values())[1:]:
        if section.name in layers:
            cell = _cell(file, section)
            cells |= {} if cell is None else {section.name: cell}
        elif section.name not in included:
            _check_no_layer(file, section, layers, classes)
    if not cells:
        raise SearchError(f"{file.path}: no section of a layer has QWeight=Prune")
    return prune_weights(model, cells, generator=generator)


def _cell(file: IniFile, section: Section) -> PruneCell | None:
    """Return how a layer is pruned, None where its section does not ask for it."""
    entries = file.merged(section)
    for entry in entries.values():
        _check_key(file, entry)
    turned_on = entries.get("QWeight")
    if turned_on is None:
        own = next((e for e in section.entries.values() if e.key in PRUNING), None)
        if own is not None:
            raise file.error(own.line, f"{own.key} without QWeight=Prune in [{section.name}]")
        return None
    if file.value(turned_on).casefold() != "prune":
        fact = f"QWeight is {file.value(turned_on)!r}; expected 'Prune'"
        raise file.error(turned_on.line, fact)
    return _made(file, section, entries)


def _made(file: IniFile, section: Section, entries: dict[str, Entry]) -> PruneCell:
    places = {KEYS[key][0]: entries.get(f"QWeight.{key}") for key in KEYS}
    given: dict[str, Any] = {
        argument: _read(file, entry, KEYS[entry.key.partition(".")[2]][1])
        for argument, entry in places.items()
        if entry is not None
    }
    filler = str(given.pop("prune_filler", "Random"))
    nothing = filler.casefold() == "none"  # N2D2's word for masks that stay as they are
    try:
        cell = PruneCell(
            **{"prune_mode": "Identity", "prune_filler": "Random" if nothing else filler, **given}
        )
        return replace(cell, prune_mode=PruneMode.IDENTITY) if nothing else cell
    except SearchError as error:
        at = places.get(str(error).partition(" ")[0])
        line, key = (section.line, section.name) if at is None else (at.line, at.key)
        raise file.error(line, f"{key}: {error}") from None


def _read(file: IniFile, entry: Entry, kind: str) -> str | float:
    text = file.value(entry)
    try:
        return READERS[kind](text)
    except ValueError:
        raise file.error(entry.line, f"{entry.key} is {text!r}; expected a {kind}") from None


def _check_key(file: IniFile, entry: Entry) -> None:
    first = re.split(r"[.(]", entry.key)[0]
    if entry.key not in PRUNING and (first == "QWeight" or first not in OTHER):
        hint = did_you_mean(entry.key, (*PRUNING, *OTHER))
        known = f"; keys of pruning: {', '.join(PRUNING)}"
        raise file.error(entry.line, f"unknown key {entry.key!r}{hint or known}")


def _check_no_layer(
    file: IniFile, section: Section, layers: list[str], classes: dict[str, str]
) -> None:
    """Refuse a section that looks like a layer's but names none."""
    entries = file.merged(section)
    kind = entries.get("Type")
    asks = any(key.startswith("QWeight") for key in entries)
    foreign = kind is not None or "Input" in entries or NO_LAYER.fullmatch(section.name)
    if foreign and not (asks and (kind is None or file.value(kind) in TYPES)):
        return
    found = classes.get(section.name)
    fact = f"unknown layer {section.name!r}{suggestion(section.name, layers)}"
    if found is not None:
        fact = f"layer {section.name!r} is {found}, which has no weight to prune"
    raise file.error(section.line, fact)
