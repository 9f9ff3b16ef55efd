"""Checks of the ops in a file of measurements: known kinds, sizes that an op can have."""

from hwcost.columns import MOST
from hwcost.errors import FitError, did_you_mean
from hwcost.measurements_cells import Line
from hwcost.ops import COMMON, KINDS, defaults, kind_sizes

#: Sizes of which an op has one at least.
_AT_LEAST_1 = ("batch", "groups", "sd", "sh", "sw", "dd", "dh", "dw")

#: Kind of op -> what others call it.
_ALSO = {
    "conv": ("depthwise", "dw", "dwconv", "depthwise_conv_2d", "pointwise", "pw", "convolution"),
    "linear": ("fc", "dense", "fully_connected", "fullyconnected", "gemm"),
    "pool": ("avgpool", "maxpool", "average_pool_2d", "max_pool_2d", "avg_pool", "max_pool"),
    "elementwise": ("add", "mul", "sub", "residual"),
    "activation": ("relu", "relu6", "sigmoid"),
    "norm": ("batchnorm", "bn", "batch_norm", "layernorm"),
    "copy": ("concat", "reshape", "transpose", "pad"),
}


def check_op(line: Line) -> None:
    """Check the kind and the sizes of a line that is an op.

    Raises:
        FitError: there is no such op; the message starts with ``file:line``.
    """
    kind = line.text("kind")
    if kind not in KINDS:
        raise FitError(f"{line.at}: no kind of op is named {kind!r}{_kind_hint(kind)}")
    own, usual = kind_sizes(kind), defaults()
    for size, value in line.sizes.items():
        if size not in own and size not in COMMON and usual.get(size) != value:
            hint = did_you_mean(size, own)
            raise FitError(f"{line.at}: {kind!r} has no size {size!r}{hint}")
        if value > MOST.get(size, value):
            raise FitError(f"{line.at}: {size!r} is {value:g}; expected 0 to {MOST[size]}")
        if value == 0 and size in (*KINDS[kind].extent, *_AT_LEAST_1):
            raise FitError(f"{line.at}: {size!r} is 0; expected 1 or more")
    groups = line.sizes.get("groups", 1)
    for size in ("cin", "cout"):
        if line.sizes.get(size, 0) % groups:
            channels = f"{line.sizes[size]:g} channels"
            raise FitError(f"{line.at}: {channels} of {size!r} do not make {groups:g} groups")
    if not line.measured and not line.text("net"):
        raise FitError(f"{line.at}: the row has neither a measured value nor a 'net'")


def _kind_hint(name: str) -> str:
    known = next((kind for kind, names in _ALSO.items() if name.lower() in names), None)
    if known is None:
        return did_you_mean(name, KINDS) or f"; known: {', '.join(KINDS)}"
    more = (
        " with 'groups' equal to 'cin'" if name.lower().startswith("d") and known == "conv" else ""
    )
    return f"; it is {known!r}{more}"
