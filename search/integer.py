"""Export to whole numbers: no float between the input's quantizer and the output's scale."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.recorder_values import tensors_in
from hwcost.search.integer_lowering import Program, lowered
from hwcost.search.integer_steps import Step


class IntegerNet(nn.Module):
    """A quantized model in whole numbers; floats come in and go out.

    Weights are int8 and biases int32 buffers; accumulators have 32 bits; going to another scale
    is a multiplication by a 31-bit integer and a shift; functions of few bits are tables.

    Attributes:
        program: the steps, in order.
    """

    def __init__(self, program: Program, buffers: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.program = program
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the fake-quantized model returns, a tuple where that is several tensors."""
        batch = self._batch(args, kwargs)
        slots = self.integers(self.quantize(*args, **kwargs), batch)
        self._run(self.program.back, slots, batch)
        return self._single([slots[slot] for slot in self.program.outputs])

    def codes(self, *args: Any, **kwargs: Any) -> Any:
        """Return the codes of the outputs: what ``forward`` returns, divided by its scale."""
        slots = self.integers(self.quantize(*args, **kwargs), self._batch(args, kwargs))
        return self._single([slots[slot] for slot in self.program.codes])

    def quantize(self, *args: Any, **kwargs: Any) -> dict[int, Tensor]:
        """Return the codes of the inputs by slot, and the inputs that are whole numbers."""
        given = tensors_in((args, kwargs))
        if len(given) != self.program.inputs:
            raise SearchError(f"{len(given)} tensors given, {self.program.inputs} expected")
        slots = dict(enumerate(given))
        self._run(self.program.front, slots, self._batch(args, kwargs))
        return {s: t for s, t in slots.items() if not t.is_floating_point()}

    @torch.no_grad()
    def integers(self, slots: dict[int, Tensor], batch: int) -> dict[int, Tensor]:
        """Return the codes of the outputs by slot, from those of the inputs.

        Args:
            slots: what ``quantize`` returned.
            batch: the number of samples.
        """
        slots = dict(slots)
        self._run(self.program.middle, slots, batch)
        return {slot: slots[slot] for slot in self.program.codes}

    def _run(self, steps: Sequence[tuple[int, Step]], slots: dict[int, Tensor], batch: int) -> None:
        last = {slot: place for place, (_, step) in enumerate(steps) for slot in step.inputs}
        for place, (slot, step) in enumerate(steps):
            buffers = [self.get_buffer(name) for name in step.buffers]
            slots[slot] = step.run([slots[s] for s in step.inputs], buffers, batch)
            for done in set(step.inputs):
                kept = done < self.program.inputs or done in self.program.codes
                if last[done] == place and not kept:
                    del slots[done]

    def _batch(self, args: Any, kwargs: Any) -> int:
        given = tensors_in((args, kwargs))
        batch = given[0].shape[0] if given and given[0].dim() else 1
        if self.program.batch not in (None, batch):
            raise SearchError(
                f"{batch} samples given, but the model's sizes hold for the example's "
                f"{self.program.batch} only"
            )
        return batch

    @staticmethod
    def _single(tensors: list[Tensor]) -> Any:
        return tensors[0] if len(tensors) == 1 else tuple(tensors)


def to_integer(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> IntegerNet:
    """Return a fake-quantized model in whole numbers.

    Args:
        model: what ``export()`` of a search for bits returns, or any model whose inputs, weights,
            biases and stored activations go through ``hwcost.recorder_quantize.fake_quantize``.
        args: an example; the result takes other numbers of samples too, unless the model has
            the number of samples in its code.
        kwargs: likewise.

    Raises:
        SearchError: an operator has no integer form; the message names it and its layer.
    """
    return IntegerNet(*lowered(model, args, kwargs))
