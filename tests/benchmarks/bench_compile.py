"""Speed of compiled formulas; run by ``make bench``.

``extra_info`` of each benchmark holds what the targets are stated in: microseconds a call, or
rows a second.
"""

import resource
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sympy as sp
import torch
from torch import Tensor

from hwcost.compile import compile_formula

OH, OW, KH, KW, CIN, COUT = sp.symbols("oh ow kh kw cin cout", nonnegative=True)
SIZES = ("oh", "ow", "kh", "kw", "cin", "cout")
GAP8 = (
    sp.ceiling(OH / 2)
    * sp.ceiling(OW / 8)
    * (2 * KH * KW * CIN + sp.ceiling(COUT / 4) * (15 + 14 * sp.ceiling(KH * KW * CIN / 4)))
)
CASES = sp.Piecewise((GAP8, KH * KW > 1), (CIN * COUT / 7, True))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sizes(rows: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {n: torch.randint(1, 65, (rows,), generator=generator).double() for n in SIZES}


def measured(benchmark: Any, call: Callable[[], object], rows: int) -> None:
    benchmark(call)
    if benchmark.stats is None:
        return
    best = benchmark.stats.stats.min
    benchmark.extra_info |= {"us": best * 1e6, "rows_per_s": rows / best}
    print(f"\n{benchmark.name}: {best * 1e6:.1f} us, {rows / best / 1e6:.3g} million rows/s")


@pytest.mark.parametrize("expr", [GAP8, CASES], ids=["gap8", "cases"])
def test_compile(benchmark: Any, expr: sp.Expr) -> None:
    measured(benchmark, lambda: compile_formula(expr), 1)


def test_specialize(benchmark: Any) -> None:
    columns = sizes(10)
    formula = compile_formula(GAP8)
    static = {n: columns[n] for n in ("oh", "ow", "kh", "kw")}
    measured(benchmark, lambda: formula.specialize(static), 10)


@pytest.mark.parametrize("expr", [GAP8, CASES], ids=["gap8", "cases"])
def test_ten_rows_forward(benchmark: Any, expr: sp.Expr) -> None:
    columns = sizes(10)
    formula = compile_formula(expr)
    measured(benchmark, lambda: formula(columns), 10)


def slopes_of(formula: Any, columns: dict[str, Tensor], above: Tensor) -> object:
    wanted = [columns[n] for n in ("cin", "cout")]
    return torch.autograd.grad(formula(columns), wanted, above)


@pytest.mark.parametrize("path", ["program", "torch"])
def test_ten_rows_forward_and_backward(benchmark: Any, path: str) -> None:
    columns = sizes(10)
    formula = compile_formula(GAP8).specialize({n: columns[n] for n in ("oh", "ow", "kh", "kw")})
    changing = {n: columns[n].requires_grad_() for n in ("cin", "cout")}
    program, inputs = formula.program, list(changing.values())
    call = formula if path == "program" else lambda _: program.trace(inputs[0], inputs)
    above = torch.ones(10, dtype=torch.float64)
    measured(benchmark, lambda: slopes_of(call, changing, above), 10)


@pytest.mark.parametrize("static", [False, True], ids=["call", "specialize"])
@pytest.mark.parametrize("expr", [GAP8, CASES], ids=["gap8", "cases"])
def test_ten_million_rows(benchmark: Any, expr: sp.Expr, static: bool) -> None:
    columns = sizes(10_000_000)
    formula = compile_formula(expr)
    with torch.no_grad():
        call = (lambda: formula.specialize(columns)) if static else (lambda: formula(columns))
        benchmark.pedantic(call, rounds=3)
    best = benchmark.stats.stats.min
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    benchmark.extra_info |= {"rows_per_s": 1e7 / best, "peak_gib": peak}
    print(f"\n{benchmark.name}: {10 / best:.1f} million rows/s, peak {peak:.2f} GiB")
