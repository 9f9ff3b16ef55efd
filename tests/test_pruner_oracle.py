"""Torch-Pruning as oracle: where it is right, it cuts what we cut; we are right everywhere."""

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

import pytest
import torch
import torch_pruning
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from hwcost.search import Pruner
from hwcost.search.attention import slow_path
from tests.channel_proof import ignoring
from tests.searchnets import NETS
from tests.searchnets_base import run

#: Net -> the layers whose first unit Torch-Pruning 1.6.1 cannot remove, and why: it raises, or its
#: network does not run, or it computes something else.
FAILS: dict[str, tuple[tuple[str, ...], str]] = {
    "DepthMultiplier": (
        ("stem", "deep"),
        "a depthwise convolution with several outputs for each input gets 0 inputs",
    ),
    "Grouped": (
        ("stem.0", "two", "four"),
        "indices of one convolution are taken for those of another with other groups",
    ),
    "Gates": (("stem", "twin", "gate"), "a gate of one channel loses it"),
    "ChannelShuffle": (
        ("stem.0", "branch.3", "squeeze"),
        "channels that a view shuffles are not followed",
    ),
    "Transposed": (("first", "depthwise", "grouped"), "groups of a transposed convolution"),
    "Kernels": (
        ("five", "tall"),
        "indices of one grouped convolution are taken for those of another",
    ),
    "PixelShuffle": (("conv1",), "channels that become pixels are not followed"),
    "GroupNorms": (("conv3",), "the groups of a normalisation come apart"),
    "InstanceNorms": (("conv2",), "running statistics of an instance normalisation stay"),
    "PReLUs": (("conv2",), "the layer behind a flatten loses too few inputs"),
    "Mixer": (
        ("embed", "blocks.0.features.2", "blocks.1.features.2"),
        "a layer along the tokens is taken for one along the features",
    ),
    "MultiheadAttention": (
        ("embed", "attention.attention.out_proj", "mlp.2", "attention.attention"),
        "attention loses features, not heads, which must divide them",
    ),
    "Encoder-batch-pre": (
        ("embed", "layer.self_attn.out_proj", "layer.linear2", "layer.self_attn"),
        "attention loses features, not heads, which must divide them",
    ),
    "Encoder-batch-post": (
        ("embed", "layer.self_attn.out_proj", "layer.linear2", "layer.self_attn"),
        "attention loses features, not heads, which must divide them",
    ),
    "Encoder-tokens-pre": (
        ("embed", "layer.self_attn.out_proj", "layer.linear2", "layer.self_attn"),
        "attention loses features, not heads, which must divide them",
    ),
    "Encoder-tokens-post": (
        ("embed", "layer.self_attn.out_proj", "layer.linear2", "layer.self_attn"),
        "attention loses features, not heads, which must divide them",
    ),
    "ConvLSTM": (("conv", "between"), "channels in front of a recurrent layer"),
    "GatedTCN": (("second",), "the size of a normalisation stays"),
    "Tied": (("conv1", "conv2"), "of two layers that share a weight one loses it"),
    "TiedAutoencoder": (("enc1", "enc2"), "a weight that is read transposed"),
    "NamedResult": (("conv1", "conv2"), "an output that is a named tuple or a data class"),
    "OwnWeight": (("", "second"), "a weight that the model reads itself"),
    "WeightNorm": (("conv1", "conv2"), "a parametrized weight"),
    "Sequences": (
        ("features.0.0", "features.1.0"),
        "grouped convolutions lose other numbers of channels in each group",
    ),
    "TrainingFlag": (("conv1",), "a layer that only training runs is left out"),
    "OwnLayers": (("conv1", "conv2"), "parameters of a user's own layer stay"),
}

#: Net -> from how many of its layers Torch-Pruning removes the first unit as we do.
AGREES = {
    "Plain": 3,
    "Residual": 8,
    "PreActivation": 5,
    "DepthwiseSeparable": 5,
    "Inception": 5,
    "DenseBlocks": 5,
    "SqueezeExcite": 3,
    "ChannelShuffle": 2,
    "MobileNet": 10,
    "UNet": 6,
    "NoBias": 2,
    "Volumes": 2,
    "Kernels": 4,
    "CausalTCN": 4,
    "TCN": 6,
    "PixelShuffle": 1,
    "ConvNeXt": 7,
    "GroupNorms": 2,
    "InstanceNorms": 1,
    "PReLUs": 1,
    "Autoencoder": 4,
    "Mixer": 4,
    "HandAttention": 7,
    "FusedAttention": 4,
    "MultiheadAttention": 1,
    "Encoder-batch-pre": 1,
    "Encoder-batch-post": 1,
    "Encoder-tokens-pre": 1,
    "Encoder-tokens-post": 1,
    "ViT": 4,
    "GatedTCN": 1,
    "Words": 2,
    "Functional": 2,
    "ConvTwice": 2,
    "Loop": 2,
    "DataDependent": 2,
    "DictOutput": 2,
    "TwoInputs": 3,
    "KeywordInputs": 2,
    "WeightNorm": 1,
    "Sequences": 1,
    "InPlace": 2,
    "ReadsLayers": 2,
    "TrainingFlag": 1,
    "UnknownOps": 1,
    "Checkpointed": 2,
    "Sequential": 2,
}


@contextmanager
def quietly() -> Iterator[None]:
    """Torch-Pruning warns of parameters that no layer of torch's holds, and prints."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        yield


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def results(model: nn.Module, given: Any) -> list[Tensor]:
    """What a model returns for some numbers, and for others that wake other units."""
    others = tree_map(lambda t: scaled(t, -3.0), given)
    with torch.no_grad():
        found = [*tree_leaves(run(model, given)), *tree_leaves(run(model, others))]
    return [t for t in found if isinstance(t, Tensor) and t.is_floating_point()]


def scaled(value: Any, factor: float) -> Any:
    """Numbers in double precision, scaled; all else as it is."""
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return value.double() * factor if floating else value


def equal(found: list[Tensor], due: list[Tensor]) -> bool:
    pairs = zip(found, due, strict=True)
    return all(a.shape == b.shape and torch.allclose(a, b, 1e-4, 1e-6) for a, b in pairs)


def theirs(model: nn.Module, given: Any, path: str, gone: Sequence[int]) -> nn.Module:
    """A copy that Torch-Pruning removed units of a layer from."""
    model = copy.deepcopy(model)
    module = model.get_submodule(path)
    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=given)
    remove = graph.get_pruner_of_module(module).prune_out_channels
    graph.get_pruning_group(module, remove, idxs=list(gone)).prune()
    return model


def fault(
    model: nn.Module, given: Any, path: str, gone: Sequence[int], due: list[Tensor]
) -> tuple[str, Any]:
    """What is wrong with Torch-Pruning's network, "" if nothing is; and its shapes."""
    try:
        with quietly():
            small = theirs(model, given, path, gone)
    except Exception as error:
        return f"it raises {type(error).__name__}", None
    try:
        right = equal(results(small, given), due)
        results(small.train(), given)
    except Exception:
        return f"the network does not run{' in training' if small.training else ''}", None
    return ("" if right else "the network computes something else"), shapes(small)


def compare(name: str) -> tuple[int, dict[str, str]]:
    """Prune unit 0 of each layer of a net with both; return how often they agree, and faults."""
    torch.manual_seed(0)
    model, given = NETS[name]()
    model.double().eval()
    given = tree_map(lambda t: scaled(t, 1.0), given)
    pruner, whole = Pruner(model, given), copy.deepcopy(model)
    agree, faults = 0, {}
    for path in list(pruner.coupling.producers):
        coupling = pruner.coupling
        units = coupling.units(path)
        if units[0] < 0 or len(units) < 2:
            continue
        alive = torch.ones(coupling.channels.n_classes, dtype=torch.bool)
        alive[units[0]] = False
        with slow_path():
            due = results(ignoring(whole, coupling.channels, alive), given)
        removed = pruner.prune_model(path, [0])
        assert equal(results(model, given), due), (name, path)
        gone = removed.units.get(f"{path}.weight", (0,))
        faults[path], found = fault(whole, given, path, gone, due)
        if not faults[path]:
            assert found == shapes(model), (name, path)
            agree += 1
        pruner.undo()
    return agree, {path: text for path, text in faults.items() if text}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Nets are so small that threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", NETS)
def test_units_go_as_torch_pruning_removes_them_where_it_is_right(name: str) -> None:
    agree, faults = compare(name)
    assert set(faults) <= set(FAILS.get(name, ((), ""))[0]), faults
    assert agree >= AGREES.get(name, 0)
