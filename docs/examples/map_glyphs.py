"""Map a network that reads glyphs of fonts onto DIANA's digital and analog arrays."""

from functools import partial

import torch
from data_glyphs import load_glyphs
from quantizing import Case, Task, main
from search_glyphs import cnn
from torch import Tensor, nn

from hwcost.search import ODiMO


def fixed(model: nn.Module, example: Tensor, mapping: str) -> ODiMO:
    """Return a search whose choices are already those of a mapping that needs no search.

    Args:
        mapping: its name in the table of baselines.
    """
    search = ODiMO(model, example)
    engines = [option.engine for option in search.odimo.options]
    wanted = search.baselines()[mapping].channels
    for weight in search.odimo.layers:
        counts = wanted[weight.path].items()
        columns = [engines.index(engine) for engine, count in counts for _ in range(count)]
        with torch.no_grad():
            logits = search.odimo.weights.logits[weight.rows]
            logits.zero_()[range(len(columns)), columns] = 10.0
    return search


def baseline(mapping: str) -> Case:
    """Return training with a mapping that needs no search."""
    return Case(mapping, partial(fixed, mapping=mapping))


def searched(strength: float, metric: str = "latency") -> Case:
    """Return a search over the engine of each channel."""
    title = f"ODiMO, {metric}, at {strength:g}"
    return Case(title, partial(ODiMO, metric=metric), strength, refined=True)


BASELINES = ("all on digital", "all on analog", "best engine for each layer", "min-cost split")
TASK = Task(
    load=load_glyphs,
    net=cnn,
    cases=(*map(baseline, BASELINES), searched(0.1), searched(0.3), searched(1.0, "energy")),
    costs={"latency": "diana:latency", "energy": "diana:energy"},
)

if __name__ == "__main__":
    main(TASK)
