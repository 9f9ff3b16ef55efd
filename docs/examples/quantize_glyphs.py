"""Train networks of few bits, and search for the bits of each channel, on glyphs of fonts."""

from functools import partial

from data_glyphs import load_glyphs
from quantizing import Case, Task, main
from search_glyphs import cnn

from hwcost.search import MPS

#: Weights in memory, in bytes: what the searches spend less of.
MEMORY = "counts:weight_bytes"


def plain(bits: int) -> Case:
    """Return training with so many bits for all weights."""
    return Case(f"w{bits}a8", partial(MPS, cost=MEMORY, w_bits=bits))


def mixed(strength: float) -> Case:
    """Return a search over the bits of each channel; 0 bits remove it."""
    make = partial(MPS, cost=MEMORY, w_bits=(0, 2, 4, 8), granularity="channel")
    return Case(f"MPS at {strength:g}", make, strength)


TASK = Task(
    load=load_glyphs,
    net=cnn,
    cases=(plain(8), plain(4), plain(2), mixed(0.05), mixed(0.4), mixed(1.0)),
    costs={"weights": MEMORY, "mpic latency": "mpic:latency"},
)

if __name__ == "__main__":
    main(TASK)
