"""The op table's vocabulary: kinds of op, their sizes, and what follows from the sizes.

One row of a table is one executed op. A size has the same name in YAML, Python, tables and
docs. Derived sizes are formulas over the sizes, written here once as text and usable by name
in any platform formula; ``batch`` is inside them, so they count the whole row.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """A column of the op table: what it means, and its value where a table leaves it out."""

    meaning: str
    default: float | None = None


#: Column -> meaning; the order is the order of columns in tables.
SIZES: dict[str, Size] = {
    "batch": Size("samples computed at once; for matmul: matrices", 1),
    "cin": Size("input channels (features)"),
    "cout": Size("output channels (features)"),
    "groups": Size("groups of a convolution", 1),
    "kd": Size("kernel depth", 1),
    "kh": Size("kernel height", 1),
    "kw": Size("kernel width"),
    "sd": Size("stride in depth", 1),
    "sh": Size("stride in height", 1),
    "sw": Size("stride in width", 1),
    "dd": Size("dilation in depth", 1),
    "dh": Size("dilation in height", 1),
    "dw": Size("dilation in width", 1),
    "id": Size("input depth", 1),
    "ih": Size("input height"),
    "iw": Size("input width"),
    "od": Size("output depth", 1),
    "oh": Size("output height"),
    "ow": Size("output width"),
    "positions": Size("positions (tokens, time steps) of a sample", 1),
    "hidden": Size("units of a recurrent layer; equal to cout unless the output is projected"),
    "gates": Size("gates of a recurrent cell: 4 for LSTM, 3 for GRU, 1 for a plain RNN"),
    "proj": Size("1 where an LSTM projects its output to cout features, else 0", 0),
    "m": Size("rows of the first matrix and of the result"),
    "n": Size("columns of the second matrix and of the result"),
    "k": Size("columns of the first matrix, rows of the second"),
    "heads": Size("attention heads"),
    "lq": Size("length of the query sequence"),
    "lk": Size("length of the key and value sequence"),
    "dhead": Size("features of a head's queries and keys"),
    "dv": Size("features of a head's values; equal to dhead unless given"),
    "elements": Size("numbers in the op's output, all samples"),
    "reads": Size("input numbers read for one output number", 1),
    "coeffs": Size("trained numbers beside conv, linear and rnn weights", 0),
    "bias": Size("1 with a bias, else 0", 0),
    "w_bits": Size("bits of a weight; open in a float model"),
    "a_bits": Size("bits of an input activation; open in a float model"),
    "o_bits": Size("bits of an output activation; equal to a_bits unless given"),
    "density": Size("share of the row's weights that are not 0", 1),
    "weight": Size("expected executions of the row", 1),
    "w_once": Size("share of the row's weights stored with it; 0 for later readers of them", 1),
    "bias_once": Size("share of the row's bias stored with it; 0 for later readers of it", 1),
    "fused": Size("1 where the output overwrites the op's input in memory, else 0", 0),
}

#: Columns that every kind has; bits are resolved when a platform prices the row.
COMMON = (
    *("w_bits", "a_bits", "o_bits", "density", "weight"),
    *("w_once", "bias_once", "fused"),
)

BITS = ("w_bits", "a_bits", "o_bits")


@dataclass(frozen=True)
class Kind:
    """A kind of op: its size columns and the derived sizes that are its own.

    ``extent`` names the sizes of which each must be above 0 for the op to exist: a row where
    one of them is 0 costs nothing.
    """

    meaning: str
    sizes: tuple[str, ...]
    extent: tuple[str, ...]
    macs: str
    w_elems: str
    bias_elems: str
    in_elems: str
    out_elems: str
    depthwise: str = "1 == 0"

    @property
    def derived(self) -> dict[str, str]:
        """Every derived size of this kind: name -> formula text over its sizes and the above."""
        own = ("macs", "w_elems", "bias_elems", "in_elems", "out_elems", "depthwise")
        params = PARAMS_OF_COEFFS if "coeffs" in self.sizes else PARAMS_OF_WEIGHTS
        return {name: getattr(self, name) for name in own} | {"params": params} | BYTES


#: Derived size -> meaning, the same for every kind.
DERIVED: dict[str, str] = {
    "macs": "multiply-accumulates, biases not counted",
    "params": "trained numbers stored, biases counted; those shared with an earlier row are not",
    "w_elems": "weights read, biases not counted",
    "bias_elems": "biases read",
    "in_elems": "input activations read",
    "out_elems": "output activations written",
    "w_bytes": "bytes of the weights read, at w_bits",
    "in_bytes": "bytes of the input activations, at a_bits",
    "out_bytes": "bytes of the output activations, at o_bits",
    "depthwise": "true for a convolution with one input channel per group and several groups",
}

PARAMS_OF_WEIGHTS = "w_once*w_elems + bias_once*bias_elems"
PARAMS_OF_COEFFS = "w_once*coeffs"
BYTES = {
    "w_bytes": "w_elems*w_bits/8",
    "in_bytes": "in_elems*a_bits/8",
    "out_bytes": "out_elems*o_bits/8",
}

_CONV_SIZES = (
    *("batch", "cin", "cout", "groups", "kd", "kh", "kw", "sd", "sh", "sw", "dd", "dh", "dw"),
    *("id", "ih", "iw", "od", "oh", "ow"),
)
_FLAT_SIZES = ("elements", "reads", "coeffs")
_DEPTHWISE = "groups > 1 and groups == cin"


def _conv(meaning: str, positions: str) -> Kind:
    return Kind(
        meaning=meaning,
        sizes=(*_CONV_SIZES, "bias"),
        extent=("cin", "cout"),
        macs=f"batch*{positions}*kd*kh*kw*cin*cout/groups",
        w_elems="kd*kh*kw*cin*cout/groups",
        bias_elems="bias*cout",
        in_elems="batch*cin*id*ih*iw",
        out_elems="batch*cout*od*oh*ow",
        depthwise=_DEPTHWISE,
    )


def _flat(meaning: str, w_elems: str = "0") -> Kind:
    return Kind(
        meaning=meaning,
        sizes=_FLAT_SIZES,
        extent=("elements",),
        macs="0",
        w_elems=w_elems,
        bias_elems="0",
        in_elems="elements*reads",
        out_elems="elements",
    )


KINDS: dict[str, Kind] = {
    "conv": _conv("convolution of any rank; a 1-D one has kh = oh = 1", "od*oh*ow"),
    "conv_transpose": _conv("transposed convolution of any rank", "id*ih*iw"),
    "linear": Kind(
        meaning="matrix of weights applied at every position",
        sizes=("batch", "cin", "cout", "positions", "bias"),
        extent=("cin", "cout"),
        macs="batch*positions*cin*cout",
        w_elems="cin*cout",
        bias_elems="bias*cout",
        in_elems="batch*positions*cin",
        out_elems="batch*positions*cout",
    ),
    "matmul": Kind(
        meaning="product of two activations, (m, k) by (k, n), batch times",
        sizes=("batch", "m", "n", "k"),
        extent=("m", "n", "k"),
        macs="batch*m*n*k",
        w_elems="0",
        bias_elems="0",
        in_elems="batch*(m*k + k*n)",
        out_elems="batch*m*n",
    ),
    "attention": Kind(
        meaning="softmax(Q K') V of all heads, without the projections around it",
        sizes=("batch", "heads", "lq", "lk", "dhead", "dv"),
        extent=("heads", "lq", "lk", "dhead"),
        macs="batch*heads*lq*lk*(dhead + dv)",
        w_elems="0",
        bias_elems="0",
        in_elems="batch*heads*(lq*dhead + lk*dhead + lk*dv)",
        out_elems="batch*heads*lq*dv",
    ),
    "rnn": Kind(
        meaning="one layer and direction of an LSTM, GRU or RNN, over all its time steps",
        sizes=("batch", "cin", "cout", "hidden", "gates", "proj", "positions", "bias"),
        extent=("cin", "cout", "hidden"),
        macs="batch*positions*(gates*hidden*(cin + cout) + proj*hidden*cout)",
        w_elems="gates*hidden*(cin + cout) + proj*hidden*cout",
        bias_elems="bias*2*gates*hidden",
        in_elems="batch*positions*cin",
        out_elems="batch*positions*cout",
    ),
    "pool": Kind(
        meaning="maximum or mean over windows; cin = cout = channels",
        sizes=_CONV_SIZES,
        extent=("cout",),
        macs="0",
        w_elems="0",
        bias_elems="0",
        in_elems="batch*cin*id*ih*iw",
        out_elems="batch*cout*od*oh*ow",
    ),
    "norm": _flat("normalisation; coeffs counts its scale and shift"),
    "activation": _flat("function of one number at a time; coeffs as in PReLU", "coeffs"),
    "elementwise": _flat("arithmetic on tensors, reductions among them", "coeffs"),
    "softmax": _flat("softmax or log-softmax"),
    "embedding": _flat("rows of a table looked up; coeffs is the whole table", "coeffs"),
    "copy": _flat("numbers moved without arithmetic: concat, pad, resize, gather"),
    "unknown": _flat("op that the trace does not know; priced only where a platform names it"),
}


def kind_sizes(kind: str) -> tuple[str, ...]:
    """Return the columns that an op of ``kind`` has, those of every kind included."""
    return (*KINDS[kind].sizes, *COMMON)


def defaults() -> Mapping[str, float]:
    """Return the columns that may be left out of a table, with the value they then have."""
    return {name: size.default for name, size in SIZES.items() if size.default is not None}
