"""That every search survives being stored, copied, resumed, and run at lower precision."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hwcost.search import Search
from tests.searchcases import (
    CASES,
    FEW,
    VARIED,
    Case,
    build,
    difference,
    exact,
    fresh,
    given,
    learners,
    outputs,
    parametrised,
    randomise,
    task_loss,
    train,
)
from tests.searchnets_base import run

pytestmark = pytest.mark.filterwarnings("ignore::hwcost.errors.HwcostWarning")

MOST = [case for case in CASES if not case.quantizing or case.net in VARIED]

every_case = parametrised(CASES, varied=True)
most_cases = parametrised(MOST, varied=True)


def on_nets(*names: str) -> pytest.MarkDecorator:
    """Parametrise over the methods on these nets only."""
    cases = [case for case in CASES if case.net in names]
    assert {case.net for case in cases} == set(names)
    return parametrised(cases)


def saved(value: Any) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return file


def pickled(search: Search) -> Any:
    return pickle.loads(pickle.dumps(search))


def loaded(search: Search) -> Any:
    return torch.load(saved(search), weights_only=False)


#: How a search is copied.
COPIES: dict[str, Callable[[Search], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": pickled,
    "torch.save": loaded,
}

#: Nets that torch stores by their state_dict only.
STATE_ONLY = {"WeightNorm"}


def _is_slow(case: Case, how: str) -> bool:
    """Whether other cases say nearly the same sooner: of most nets one kind of copy is enough."""
    return case.slow or (how != "deepcopy" and case.net not in FEW)


every_copy = pytest.mark.parametrize(
    ("case", "how"),
    [
        pytest.param(
            case, how, id=f"{case}-{how}", marks=[pytest.mark.slow] if _is_slow(case, how) else []
        )
        for case in MOST
        for how in (["deepcopy"] if case.net in STATE_ONLY else COPIES)
    ],
)


@torch.no_grad()
def same(search: Search, other: Search, example: Any) -> bool:
    """Whether both compute and cost the same to the last bit."""
    costs = [(name, hard) for name in search.cost_specification for hard in (False, True)]
    return difference(search, other, example) == 0 and all(
        search.get_cost(name, hard) == other.get_cost(name, hard) for name, hard in costs
    )


@every_case
def test_a_state_dict_restores_a_search(case: Case) -> None:
    search, example = fresh(case, seed=0), given(case)
    run(search.train(), example)
    other = fresh(case)
    other.load_state_dict(torch.load(saved(search.state_dict())), strict=True)
    assert same(search, other, example)


@every_copy
def test_a_copy_is_the_same_search(case: Case, how: str) -> None:
    search, example = fresh(case, seed=0), given(case)
    assert same(search, COPIES[how](search), example)


@every_copy
def test_a_copy_is_a_search_of_its_own(case: Case, how: str) -> None:
    search, example = fresh(case, seed=0), given(case)
    before = search.state_dict()
    before = {key: v.clone() for key, v in before.items() if isinstance(v, torch.Tensor)}
    twin = COPIES[how](search)
    task_loss(twin.train(), example).backward()
    assert all(parameter.grad is None for parameter in search.parameters())
    assert any(parameter.grad is not None for parameter in learners(twin))
    randomise(twin, 1)
    twin, exact_example = exact(case, twin)
    assert difference(twin.export(), twin, exact_example) <= 1e-5
    after = search.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@on_nets(
    *("Residual", "MobileNet", "ConvNeXt", "CausalTCN", "GroupNorms", "ConvLSTM"),
    *("Skippable", "Nested", "Shared", "Series"),
)
def test_a_resumed_search_goes_on_bit_by_bit(case: Case) -> None:
    first, example = fresh(case, seed=0), given(case)
    first.sampling.mode = "hard+gumbel" if case.branching or case.quantizing else "soft"
    optimizer = adam(first)
    train(first, optimizer, example, steps=3)
    state = saved([first.state_dict(), optimizer.state_dict()])
    train(first, optimizer, example, steps=3)
    second = build(case)
    again = adam(second)
    search_state, optimizer_state = torch.load(state)
    second.load_state_dict(search_state)
    again.load_state_dict(optimizer_state)
    train(second, again, example, steps=3)
    found, expected = second.state_dict(), first.state_dict()
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(found[name], value), name
    assert same(first, second, example)


def adam(search: Search) -> torch.optim.Optimizer:
    return torch.optim.Adam(search.param_groups(lr=1e-2, nas_lr=5e-2))


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # torch's RMSNorm
@most_cases
def test_a_search_trains_at_lower_precision(case: Case) -> None:
    search, example = fresh(case, seed=0), given(case)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = task_loss(search.train(), example) + sum(
            search.get_cost(name, relative=True) for name in search.cost_specification
        )
    loss.backward()
    gradients = [p.grad for p in learners(search) if p.grad is not None]
    assert gradients and all(bool(gradient.isfinite().all()) for gradient in gradients)
    search, example = exact(case, search)
    assert difference(search.export(), search, example) <= 1e-5


@pytest.mark.slow
@on_nets(
    *("Residual", "MobileNet", "ConvNeXt", "CausalTCN", "UNet", "MultiheadAttention", "Kernels"),
    *("Nested", "Series"),
)
def test_an_export_passes_torch_export(case: Case) -> None:
    exported, example = fresh(case, seed=0).export().eval(), given(case)
    program = torch.export.export(exported, *arguments(example))
    assert difference(Program(program.module()), exported, example) <= 1e-5


ONNX_NETS = {
    *("Residual", "ConvNeXt", "CausalTCN", "MultiheadAttention", "Kernels", "Nested", "Series")
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # torch's own
@pytest.mark.slow
# Methods that quantize have an ONNX of their own: tests/test_onnx_export.py.
@parametrised(case for case in CASES if case.net in ONNX_NETS and not case.quantizing)
def test_an_export_passes_onnx(case: Case) -> None:
    for library in ("onnx", "onnxscript"):
        pytest.importorskip(library, reason="the extra 'onnx' is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
    exported, example = fresh(case, seed=0).export().eval(), given(case)
    args, kwargs = arguments(example)
    program = torch.onnx.export(exported, args, kwargs=kwargs, dynamo=True, verbose=False)
    assert program is not None
    session = runtime.InferenceSession(program.model_proto.SerializeToString())
    name = session.get_inputs()[0].name
    found = torch.from_numpy(session.run(None, {name: example.numpy()})[0])
    expected = outputs(exported, example)[0][0]
    assert float((found - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, dict):
        return (), example
    return (example if isinstance(example, tuple) else (example,)), {}


class Program(nn.Module):
    """An exported program; its own module has no evaluation mode."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.run = [inside]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run[0](*args, **kwargs)
