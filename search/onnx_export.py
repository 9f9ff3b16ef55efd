"""Export to ONNX with QuantizeLinear and DequantizeLinear, for onnxruntime and the like."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from hwcost.errors import SearchError
from hwcost.recorder_state import set_mode, untouched
from hwcost.recorder_values import tensors_in
from hwcost.search.onnx_graph import DOMAIN, NAME, Rewriter

#: The name of the dimension of the samples.
BATCH = "batch"

#: The opset: the first whose quantizers ONNX runtimes have in common.
OPSET = 18


def to_onnx(
    model: nn.Module,
    args: Sequence[Any],
    path: str | os.PathLike[str],
    kwargs: Mapping[str, Any] | None = None,
) -> None:
    """Write a fake-quantized model as QDQ ONNX.

    Weights are int8 and biases int32 in the file. Bits, codes and scales of every quantizer are
    in its metadata, as JSON, under ``hwcost.quantizers``. The number of samples is free unless
    the model has it in its code.

    On x86 processors without VNNI instructions, onnxruntime's kernels for uint8 activations and
    int8 weights saturate; its session option ``session.x64quantprecision`` avoids that.

    Args:
        model: what ``export()`` of a search for bits returns, or any model whose inputs, weights,
            biases and stored activations go through ``hwcost.recorder_quantize.fake_quantize``.
        args: an example.
        path: the file.
        kwargs: further arguments of the example.

    Raises:
        SearchError: onnx or onnxscript is not installed, torch cannot export the model, or ONNX
            has no type for some codes.
    """
    onnx, translation = _tools()
    with _quiet(), untouched(model):
        set_mode(model, training=False)
        proto = _exported(model, tuple(args), dict(kwargs or {}), translation)
        Rewriter(proto).rewrite()
        onnx.checker.check_model(proto, full_check=True)
        onnx.save(proto, os.fspath(path))


def _tools() -> tuple[Any, dict[Any, Any]]:
    """Return the package onnx, and how torch's exporter writes the quantizer."""
    try:
        import onnx
        import onnxscript
    except ImportError as error:
        raise SearchError(
            f"ONNX export needs the package {error.name!r}; pip install hwcost[onnx]"
        ) from None
    schema = onnx.defs.OpSchema
    lists = [schema.Attribute(n, schema.AttrType.INTS) for n in ("bits", "low", "high")]
    described = schema(
        NAME,
        DOMAIN,
        1,
        inputs=[schema.FormalParameter(n, "T") for n in ("x", "scale")],
        outputs=[schema.FormalParameter("y", "T")],
        type_constraints=[("T", ["tensor(float)"], "")],
        attributes=[
            *lists,
            schema.Attribute("axis", schema.AttrType.INT),
            schema.Attribute("label", schema.AttrType.STRING),
        ],
    )
    quantizer = onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, 1), NAME, described)

    def written(
        x: Any,
        scale: Any,
        bits: Any,
        low: Any,
        high: Any,
        axis: int,
        label: str,
        engines: str,
        unit: Any = None,
        unit_axis: int = 0,
    ) -> Any:
        lists = {"bits": list(bits), "low": list(low), "high": list(high)}
        return quantizer(x, scale, **lists, axis=axis, label=label)

    return onnx, {torch.ops.hwcost.fake_quantize.default: written}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter warns of, logs and prints to it."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _exported(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], translation: dict[Any, Any]
) -> Any:
    """Return the ONNX model with quantizers as torch's exporter writes it."""
    args, kwargs, shapes = _free_batch(args, kwargs)
    failure: Exception | None = None
    choices: tuple[Any, ...] = (shapes, None)
    for dynamic in choices:
        try:
            program = torch.export.export(model, args, kwargs, dynamic_shapes=dynamic, strict=False)
            written: Any = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                custom_translation_table=translation,
            )
            return _named(written.model_proto)
        except Exception as error:
            failure = failure or error
    what = str(failure).strip().splitlines()[0]
    raise SearchError(f"ONNX export: torch cannot export the model: {what}") from failure


def _free_batch(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], torch.export.ShapesCollection]:
    """Return an example of two samples at least, and which of its sizes are free."""
    tensors = tensors_in((args, kwargs))
    batch = tensors[0].shape[0] if tensors and tensors[0].dim() else 0

    def longer(tensor: Tensor) -> Tensor:
        # torch takes a size of 1 for one that never changes.
        same = batch == 1 and tensor.dim() > 0 and tensor.shape[0] == 1
        return torch.cat([tensor, tensor]) if same else tensor

    args, kwargs = tree_map_only(Tensor, longer, (args, kwargs))
    shapes = torch.export.ShapesCollection()
    for tensor in tensors_in((args, kwargs)):
        if tensor.dim() > 0 and tensor.shape[0] == max(batch, 2):
            shapes[tensor] = {0: torch.export.Dim.AUTO}
    return args, kwargs, shapes


def _named(proto: Any) -> Any:
    """Call the free size of the inputs ``batch``, wherever it is."""
    free = {d.dim_param for i in proto.graph.input for d in i.type.tensor_type.shape.dim[:1]}
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param and dim.dim_param in free:
                dim.dim_param = BATCH
    return proto
