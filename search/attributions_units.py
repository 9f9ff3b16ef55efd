"""Along which dimension a module's units lie, and where their values are best looked at."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import activation, batchnorm, normalization
from torch.nn.modules.conv import _ConvNd

from hwcost.search.attributions_data import Batch
from hwcost.search.attributions_local import dim_after, name_of
from hwcost.search.attributions_state import first_tensor
from hwcost.search.attributions_tape import MARK, Node, Recorder
from hwcost.search.coupling import LAST

#: A tensor by its number, and how often it had been overwritten.
Key = tuple[int, int]

NORMS = (
    batchnorm._NormBase,
    normalization.GroupNorm,
    normalization.LayerNorm,
    normalization.RMSNorm,
    normalization.LocalResponseNorm,
)
ACTIVATIONS = tuple(
    cls
    for cls in vars(activation).values()
    if isinstance(cls, type)
    and issubclass(cls, nn.Module)
    and cls.__module__ == activation.__name__
    if cls not in (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin)
    if cls is not nn.GLU
)

#: Operators whose results have units along dimension 1, and along the last one.
_SECOND = {"convolution", "native_batch_norm", "_native_batch_norm_legit_no_training"}
_SECOND |= {"native_group_norm", "cudnn_batch_norm", "miopen_batch_norm"}
_LAST = {"addmm", "mm", "bmm", "native_layer_norm", "_fused_rms_norm", "embedding", "lstm", "gru"}
_LAST |= {"baddbmm", "rnn_tanh", "rnn_relu", "_scaled_dot_product_flash_attention_for_cpu"}
_NORMALISING = (_SECOND | {"native_layer_norm", "_fused_rms_norm"}) - {"convolution"}


@dataclass(frozen=True)
class Ran:
    """One call of a module: what it got and returned, and which operators ran in it."""

    path: str
    module: nn.Module
    inputs: frozenset[Key]
    output: Key
    nodes: range


@dataclass
class Walk:
    """One run of a model on one sample.

    Attributes:
        recorder: its operators.
        ran: its calls of modules, in the order in which they ended.
    """

    recorder: Recorder = field(default_factory=Recorder)
    ran: list[Ran] = field(default_factory=list)

    def key(self, tensor: Tensor) -> Key:
        """Return what a tensor is now."""
        return self.recorder.number(tensor), tensor._version

    def first(self, path: str) -> Ran | None:
        """Return the first call of the module of this path."""
        return next((ran for ran in self.ran if ran.path == path), None)


def walk(model: nn.Module, batch: Batch) -> Walk:
    """Return a run on the first sample of a batch; within ``evaluating``."""
    found = Walk()
    open_: list[tuple[int, frozenset[Key]]] = []

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        given = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]
        keys = frozenset(found.key(t) for t in given)
        open_.append((len(found.recorder.nodes), keys))

    def after(path: str, module: nn.Module, output: Any) -> None:
        start, inputs = open_.pop()
        if _tensors(output):
            key = found.key(first_tensor(output, module))
            nodes = range(start, len(found.recorder.nodes))
            found.ran.append(Ran(path, module, inputs, key, nodes))

    handles = []
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and path:
            continue
        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(lambda m, a, o, p=path: after(p, m, o)))
    one = batch.sample(0) if batch.size > 1 else batch
    try:
        with found.recorder:
            model(*one.args, **one.kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _tensors(output: Any) -> bool:
    inside = output.values() if isinstance(output, dict) else output
    if isinstance(output, Tensor):
        return True
    return isinstance(inside, (list, tuple)) and any(isinstance(v, Tensor) for v in inside)


def known_dim(module: nn.Module) -> int | None:
    """Return the dimension of a module's units in its result, None if its kind says nothing."""
    if isinstance(module, (*LAST, nn.MultiheadAttention)):
        return -1
    return 1 if isinstance(module, (_ConvNd, *NORMS)) else None


def unit_dim(found: Walk, path: str, module: nn.Module) -> int:
    """Return the dimension of a module's units in what it returns.

    What its kind does not tell, the operators before it do: units lie where the last of them that
    made units, or that normalises them, put them.
    """
    known = known_dim(module)
    ran = found.first(path)
    if known is not None or ran is None:
        return 1 if known is None else known
    return _dim_of(found.recorder, ran.output)


def _dim_of(recorder: Recorder, key: Key) -> int:
    """Return the dimension of the units of a tensor."""
    chain: list[tuple[Node, int]] = []
    node = _maker(recorder.nodes, key)
    while node is not None:
        rank = recorder.tensors[node.outputs[0]].dim()
        name = name_of(node)
        if name in _SECOND | _LAST or not node.inputs:
            dim: int | None = 1 if name in _SECOND else rank - 1
            for later, source in reversed(chain):
                inputs = [n for _, n in later.inputs if n == source]
                assert dim is not None
                dim = dim_after(later, inputs, {source: dim}, recorder.tensors)
                if dim is None:
                    return 1
            return 1 if dim is None or not node.inputs else dim
        sources = [n for _, n in node.inputs if _is_made(recorder.nodes, n, node)]
        if not sources:
            return 1
        chain.append((node, sources[0]))
        node = _maker(recorder.nodes, (sources[0], node.versions[sources[0]][0]))
    return 1


def _maker(nodes: Sequence[Node], key: Key) -> Node | None:
    number, version = key
    made = (n for n in nodes if number in n.outputs and n.versions[number][1] == version)
    return next(made, None)


def _is_made(nodes: Sequence[Node], number: int, node: Node) -> bool:
    return _maker(nodes, (number, node.versions[number][0])) is not None


def best_module(found: Walk, path: str) -> str:
    """Return the last norm or activation that a module's units, and nothing else, go through.

    Dropout and functions that keep channels apart are passed; where a value has several readers,
    is pooled, reshaped or joined with others, the way ends. The module's own path if there is none.
    """
    ran = found.first(path)
    best, passed = path, set[Key]()
    while ran is not None:
        best = ran.path
        key: Key | None = ran.output
        ran = None
        while key is not None and ran is None and key not in passed:
            passed.add(key)
            readers = list(_readers(found.recorder.nodes, key))
            ran = _module_around(found, key, readers)
            key = _through(found, readers)
    return best


def _readers(nodes: Sequence[Node], key: Key) -> Iterator[int]:
    number, version = key
    for index, node in enumerate(nodes):
        if any(n == number for _, n in node.inputs) and node.versions[number][0] == version:
            yield index


def _module_around(found: Walk, key: Key, readers: list[int]) -> Ran | None:
    """Return the call of a norm or activation that alone reads a tensor."""
    shape = found.recorder.tensors[key[0]].shape
    for ran in found.ran:
        if key not in ran.inputs or not readers or any(True for _ in ran.module.children()):
            continue
        same = found.recorder.tensors[ran.output[0]].shape == shape and ran.output != key
        if same and all(r in ran.nodes for r in readers) and _is_plain(found, ran):
            return ran
    return None


def _is_plain(found: Walk, ran: Ran) -> bool:
    if isinstance(ran.module, (*NORMS, *ACTIVATIONS)):
        return True
    inside = [found.recorder.nodes[i] for i in ran.nodes]
    known = {n for node in inside for n in node.outputs} | {n for n, _ in ran.inputs}
    own = {id(t) for t in (*ran.module.parameters(), *ran.module.buffers())}
    tensors = found.recorder.tensors
    return all(
        _keeps(node) and all(n in known or id(tensors[n]) in own for _, n in node.inputs)
        for node in inside
    )


def _keeps(node: Node) -> bool:
    if node.func == MARK:
        return False
    return torch.Tag.pointwise in node.func.tags or name_of(node) in {"hardswish", *_NORMALISING}


def _through(found: Walk, readers: list[int]) -> Key | None:
    """Return what the only reader of a tensor makes of it, if it changes each number by itself."""
    if len(readers) != 1:
        return None
    node = found.recorder.nodes[readers[0]]
    others = [n for _, n in node.inputs[1:]]
    free = all(_maker(found.recorder.nodes, (n, node.versions[n][0])) is None for n in others)
    if not _keeps(node) or not free or (others and torch.Tag.pointwise in node.func.tags):
        return None
    return node.outputs[0], node.versions[node.outputs[0]][1]


def next_in_sequence(model: nn.Module, module: nn.Module) -> nn.Module:
    """Return what ``best_module`` would, as far as an ``nn.Sequential`` tells without a run."""
    best = module
    for parent in model.modules():
        inside = list(parent.children()) if isinstance(parent, nn.Sequential) else []
        if module not in inside:
            continue
        for later in inside[inside.index(module) + 1 :]:
            if isinstance(later, (*NORMS, *ACTIVATIONS)):
                best = later
            elif not isinstance(later, (nn.Dropout, nn.Identity)):
                break
    return best
