"""Rows of the ops that multiply: convolution, linear, matmul, attention, recurrent networks."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from hwcost.recorder_values import Call, Ref, product
from hwcost.tracing_facts import Facts, Row

Handler = Callable[[Call, Facts], list[Row]]


def spatial(**sizes: Sequence[int]) -> dict[str, float]:
    """Return columns for prefixes and their values: ``k=(3, 5)`` is kd=1, kh=3, kw=5."""
    return {
        prefix + axis: value
        for prefix, values in sizes.items()
        for axis, value in zip("dhw", (1, 1, 1, *values)[-3:], strict=True)
    }


def spread(values: Sequence[int] | int, rank: int) -> tuple[int, ...]:
    """Return one value for each dimension."""
    values = (values,) if isinstance(values, int) else tuple(values)
    return values * rank if len(values) == 1 else values


def convolution(call: Call, facts: Facts) -> list[Row]:
    """Return the row of a convolution of any rank, transposed or not."""
    weight, bias = call.arg("weight"), call.arg("bias")
    before = facts.shape(facts.before_padding(call.arg("input")))
    after = facts.shape(call.outputs[0])
    kernel = facts.shape(weight)[2:]
    rank = len(kernel)
    sizes = {
        "batch": after[0],
        "cin": before[1],
        "cout": after[1],
        "groups": call.arg("groups"),
        "bias": float(bias is not None),
    } | spatial(
        k=kernel,
        s=spread(call.arg("stride"), rank),
        d=spread(call.arg("dilation"), rank),
        i=before[2:],
        o=after[2:],
    )
    kind = "conv_transpose" if call.arg("transposed") else "conv"
    return [Row(kind, sizes, product(after), weight, bias, (call.arg("input"),))]


def linear(call: Call, facts: Facts) -> list[Row]:
    """Return the row of ``F.linear``, whatever its weight is."""
    weight, bias = call.arg("weight"), call.arg("bias")
    cout, cin = facts.shape(weight)
    out = facts.info(call.outputs[0]).numel
    shape = facts.unflattened(call.args[0])
    if product(shape[:-1]) * cout != out:  # a nested tensor: its samples differ in length
        shape = (1, out // max(cout, 1), cin)
    return [_linear(shape, cin, cout, weight, bias, (call.args[0],))]


def experts(call: Call, facts: Facts) -> list[Row]:
    """Return the row of tokens that each go through one of several matrices of weights."""
    tokens, cin = facts.shape(call.args[0])[-2:]
    count, _, cout = facts.shape(call.args[1])
    row = _linear((1, tokens, cin), cin, cout, call.args[1], call.arg("bias"))
    return [replace(row, experts=count)]


def _linear(
    shape: Sequence[int],
    cin: int,
    cout: int,
    weight: Ref,
    bias: Ref | None,
    operands: tuple[Ref, ...] = (),
) -> Row:
    """Return the row of a matrix of weights on an input (batch, positions..., cin)."""
    batch = shape[0] if len(shape) > 1 else 1
    positions = product(shape[1:-1])
    sizes = {
        "batch": batch,
        "cin": cin,
        "cout": cout,
        "positions": positions,
        "bias": float(bias is not None),
    }
    return Row("linear", sizes, batch * positions * cout, weight, bias, operands)


def matmul(first: str, second: str, bias: str = "") -> Handler:
    """Return the handler of a product of the arguments with these names."""

    def handler(call: Call, facts: Facts) -> list[Row]:
        added = call.arg(bias) if bias else None
        return [_product(call.arg(first), call.arg(second), added, call, facts)]

    return handler


def _product(a: Ref, b: Ref, bias: Ref | None, call: Call, facts: Facts) -> Row:
    """Return a linear row where one factor is a constant matrix, a matmul row where none is."""
    left, right = facts.shape(a), facts.shape(b)
    m, k = (1, *left)[-2:]
    n = right[-1] if len(right) > 1 else 1
    out = product(facts.shape(call.outputs[0]))
    if bias is not None and (facts.is_data(bias) or len(facts.shape(bias)) != 1):
        bias = None
    for factor, constant in ((a, b), (b, a)):
        if facts.is_data(constant) or not facts.is_data(factor) or not out:
            continue
        cout = n if constant == b else m
        matrices = max(facts.info(constant).distinct // max(k * cout, 1), 1)
        if matrices > 1:
            return _grouped(matrices, k, cout, out, constant)
        if constant == b:
            return _linear(facts.unflattened(a), k, n, b, bias)
        return _linear((*right[:-2], n, k) if len(right) > 1 else (k,), k, m, a, None)
    batch = out // max(m * n, 1)
    return Row("matmul", {"batch": batch, "m": m, "n": n, "k": k}, out)


def _grouped(matrices: int, k: int, cout: int, out: int, weight: Ref) -> Row:
    """Return the row of many constant matrices, each on its own part: a grouped 1x1 convolution."""
    positions = out // (matrices * cout)
    sizes = {
        "batch": 1,
        "cin": matrices * k,
        "cout": matrices * cout,
        "groups": matrices,
        "bias": 0.0,
    } | spatial(k=(1, 1), i=(1, positions), o=(1, positions))
    return Row("conv", sizes, out, weight)


def bilinear(call: Call, facts: Facts) -> list[Row]:
    """Return the rows of ``F.bilinear``: an outer product, and a matrix of weights on it."""
    weight = call.arg("weight")
    cout, first, second = facts.shape(weight)
    batch = product(facts.shape(call.args[0])[:-1])
    outer = batch * first * second
    sizes = {"elements": outer, "reads": (first + second) / (first * second), "coeffs": 0}
    row = _linear((batch, first * second), first * second, cout, weight, call.arg("bias"))
    return [Row("elementwise", sizes, outer, part="outer"), replace(row, after=(0,))]


def attention(call: Call, facts: Facts) -> list[Row]:
    """Return the row of scaled dot-product attention."""
    query, key, value = (facts.shape(call.arg(name)) for name in ("query", "key", "value"))
    row = attention_row(query, key, value)
    mask = call.arg("attn_mask") or call.arg("attn_bias")
    if mask is None or not facts.parameters_of([mask]):
        return [row]
    scores = product(row.sizes[name] for name in ("batch", "heads", "lq", "lk"))
    sizes = {"elements": scores, "reads": 1, "coeffs": 0}
    added = Row("elementwise", sizes, scores, operands=(mask,), part="mask", internal=True)
    return [added, row]


def flex_attention(call: Call, facts: Facts) -> list[Row]:
    """Return the row of flex attention, all of it: which blocks it skips is a function."""
    query, key, value = (facts.shape(r) for r in call.args[:3])
    return [attention_row(query, key, value)]


def attention_row(query: Sequence[int], key: Sequence[int], value: Sequence[int]) -> Row:
    """Return the row for shapes (batch..., heads, length, features)."""
    query = (1, *query)[-max(len(query), 3) :]
    sizes: dict[str, float] = {
        "batch": product(query[:-3]),
        "heads": query[-3],
        "lq": query[-2],
        "lk": key[-2],
        "dhead": query[-1],
        "dv": value[-1],
    }
    return Row("attention", sizes, product(query[:-1]) * value[-1])


def recurrent(gates: int) -> Handler:
    """Return the handler of a recurrent network: a row for each layer and direction."""

    def handler(call: Call, facts: Facts) -> list[Row]:
        directions = 2 if call.arg("bidirectional") else 1
        weights = call.arg("params")
        count = call.arg("num_layers") * directions
        batch, positions = _steps(call, facts)
        rows: list[Row] = []
        for i in range(count):
            layer, reverse = divmod(i, directions)
            own = weights[i * len(weights) // count : (i + 1) * len(weights) // count]
            before = range((layer - 1) * directions, layer * directions) if layer else ()
            part = f"l{layer}{'_reverse' if reverse else ''}" if count > 1 else ""
            # Two matrices, two biases if any, and the matrix of an LSTM's projection if any.
            bias = own[2] if call.arg("has_biases") else None
            matrices = (*own[:2], *own[2 if bias is None else 4 :])
            steps = batch, positions
            rows.append(_recurrent_row(gates, matrices, bias, steps, facts, part, tuple(before)))
        return rows

    return handler


def _steps(call: Call, facts: Facts) -> tuple[int, int]:
    """Return samples and time steps; a packed batch of unequal ones is one long sample."""
    if "batch_sizes" not in call.op.names:
        first, second = facts.shape(call.args[0])[:2]
        return (first, second) if call.arg("batch_first") else (second, first)
    state = call.arg("hx")
    state = state[0] if isinstance(state, tuple) else state
    rows, batch = facts.shape(call.args[0])[0], facts.shape(state)[1]
    return (batch, rows // batch) if rows % batch == 0 else (1, rows)


def _recurrent_row(
    gates: int,
    weights: Sequence[Ref],
    bias: Ref | None,
    steps: tuple[int, int],
    facts: Facts,
    part: str = "",
    after: tuple[int, ...] = (),
) -> Row:
    (rows, cin), (_, cout) = (facts.shape(w) for w in weights[:2])
    sizes = {
        "batch": steps[0],
        "cin": cin,
        "cout": cout,
        "hidden": rows // gates,
        "gates": gates,
        "proj": float(rows // gates != cout),
        "positions": steps[1],
        "bias": float(bias is not None),
    }
    first, *more = weights
    out = product(steps) * cout
    return Row("rnn", sizes, out, first, bias, part=part, after=after, more=tuple(more))


def cell(gates: int) -> Handler:
    """Return the handler of a recurrent cell: one time step."""

    def handler(call: Call, facts: Facts) -> list[Row]:
        weights = call.arg("w_ih"), call.arg("w_hh")
        batch = product(facts.shape(call.args[0])[:-1])
        return [_recurrent_row(gates, weights, call.arg("b_ih"), (batch, 1), facts)]

    return handler
