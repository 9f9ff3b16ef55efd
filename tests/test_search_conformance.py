"""What must hold for every search method on every net, found automatically."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hwcost import CostModel, trace
from hwcost.search import MPS, Search
from hwcost.search.quantized import QuantizedMethod
from tests.searchcases import (
    BRANCHING,
    CASES,
    KINDS,
    METHODS,
    UNSEARCHED,
    VARIED,
    Case,
    allowed,
    as_double,
    between,
    build,
    built,
    decide,
    difference,
    exact,
    fresh,
    given,
    masks,
    outputs,
    parametrised,
    randomise,
    relative_cost,
    smooth,
    subject,
    task_loss,
)
from tests.searchnets import NETS

pytestmark = pytest.mark.filterwarnings("ignore::hwcost.errors.HwcostWarning")

#: Classes of hwcost that an export may hold, where torch has none that computes the same.
DOCUMENTED = {"Attention", "PaddedConv1d", "PaddedConv2d", "PaddedConv3d"}

#: Nets with exact halves of steps, which another order of the same sum rounds either way: means of
#: two codes, as interpolation makes.
TIES = {"UNet"}

#: Net -> why the task does not reach all choices.
UNREACHED = {"DataDependent": "a sum that only the code's own branches read has no gradient"}

#: What takes the place of a norm that is folded into the layer before it.
FOLDED = {"Identity"}

every_case = parametrised(CASES)


def only(wanted: Callable[[Case], bool]) -> pytest.MarkDecorator:
    """Parametrise over some cases."""
    return parametrised(case for case in CASES if wanted(case))


#: All nets, but of methods that quantize those in ``VARIED``.
most_cases = only(lambda case: not case.quantizing or case.net in VARIED)

#: (method, cost) -> why the soft cost of a decided search is not always that of its export.
SOFT_DIFFERS = {
    (method, "memory"): "the schedule holds the inputs of branches that are not chosen"
    for method in BRANCHING
} | {
    ("ODiMO", metric): "a loss has a smooth maximum over engines, a report the exact one"
    for metric in ("latency", "energy")
}


@every_case
def test_the_export_computes_what_the_search_does(case: Case) -> None:
    search, example = exact(case, fresh(case))
    for seed in range(4):
        randomise(search, seed)
        if case.quantizing and case.net in TIES:
            assert_nearly_all_equal(search.export(), search, example, share=0.01)
        else:
            assert difference(search.export(), search, example) <= 1e-5, f"seed {seed}"


@only(lambda case: case.quantizing and case.net in VARIED)
def test_in_float32_hardly_a_code_of_an_export_is_another(case: Case) -> None:
    search, example = fresh(case, seed=0), given(case)
    assert_nearly_all_equal(search.export(), search, example, share=0.01)


def assert_nearly_all_equal(
    model: nn.Module, other: nn.Module, example: Any, share: float, most: float = 4
) -> None:
    """At most ``share`` of the outputs differ, by ``most`` steps of 8 bits."""
    leaves = (outputs(net, example)[0] for net in (model, other))
    for found, expected in zip(*leaves, strict=True):
        if isinstance(found, Tensor):
            steps = (found - expected).abs() / (expected.abs().max() / 127)
            assert float((steps > 0.5).double().mean()) <= share
            assert float(steps.max()) <= most


#: With branches, training mixes what an export has only one of.
without_branches = only(lambda case: not case.branching and not case.quantizing)

#: The nets of methods that quantize, once each.
QUANTIZABLE = list(dict.fromkeys(case.net for case in CASES if case.method == "MPS"))
quantizable_nets = pytest.mark.parametrize("net", QUANTIZABLE)


@without_branches
def test_the_export_trains_as_the_search_does(case: Case) -> None:
    search, example = fresh(case, seed=5), given(case)
    assert difference(search.export(), search, example, training=True) <= 1e-5


@quantizable_nets
def test_the_export_trains_as_the_search_does_with_one_precision(net: str) -> None:
    model, example = NETS[net]()  # with several, training mixes what an export has one of
    search = MPS(model, example, w_bits=4, a_bits=8).double()
    example = as_double(example)
    assert difference(search.export(), search, example, training=True) <= 1e-5


@only(lambda case: case.faithful)
def test_an_undecided_search_computes_what_the_net_does(case: Case) -> None:
    model, example = subject(case)
    assert difference(fresh(case), model, example) <= 1e-5


@pytest.mark.parametrize("net", QUANTIZABLE)
def test_at_16_bits_a_net_computes_nearly_what_it_did(net: str) -> None:
    model, example = NETS[net]()
    search = MPS(model, example, w_bits=16, a_bits=16, outer_bits=16)
    assert difference(search.double(), model.double(), as_double(example)) <= 5e-3


@every_case
def test_the_hard_cost_is_that_of_the_export(case: Case) -> None:
    search, example = fresh(case), given(case)
    for seed in range(2):
        randomise(search, seed)
        workload = trace(search.export(), example)
        for name in search.cost_specification:
            spec = {**case.costs, **case.hardware}[name]
            expected = CostModel(*spec.split(":")).total(workload)
            assert search.get_cost(name, hard=True) == expected, f"{name}, seed {seed}"


@every_case
def test_the_soft_cost_of_a_decided_search_is_that_of_its_export(case: Case) -> None:
    search = fresh(case)
    for seed in range(3):
        decide(search, seed)
        for name in search.cost_specification:
            if (case.method, name) in SOFT_DIFFERS or (name in case.hardware and lonely(search)):
                continue
            soft, hard = search.get_cost(name), search.get_cost(name, hard=True)
            assert float(soft.detach()) == pytest.approx(float(hard), rel=1e-9), (name, seed)


def lonely(search: Search) -> bool:
    """Whether a depthwise layer has lost all channels but one, which makes it an ordinary one.

    Which formula prices a layer is settled before a search, and a platform may have two.
    """
    before, now = search.workload_reference, search.workload(hard=True)
    grouped = {
        layer
        for layer, groups in zip(before.layers, before.column("groups").tolist(), strict=True)
        if groups > 1
    }
    return any(
        layer in grouped and groups == 1
        for layer, groups in zip(now.layers, now.column("groups").tolist(), strict=True)
    )


@only(lambda case: not case.quantizing)
def test_masks_cannot_inflate_a_cost(case: Case) -> None:
    search = fresh(case)
    with torch.no_grad():
        full = {name: search.get_cost(name) for name in search.cost_specification}
        for low, high in ((5.0, 5.5), (-3.0, 3.0)):
            for name, parameter in search.named_nas_parameters():
                if not name.endswith("logits"):
                    parameter.uniform_(low, high)
            for name, most in full.items():
                assert search.get_cost(name) <= most * (1 + 1e-9), name


@only(lambda case: case.method == "MPS")
def test_no_choice_costs_more_than_the_most_bits(case: Case) -> None:
    search = fresh(case)
    with torch.no_grad():
        logits = {n: p for n, p in search.named_nas_parameters() if n.endswith("logits")}
        for name, parameter in logits.items():
            options = allowed(search, name) * torch.arange(1, parameter.shape[1] + 1)
            parameter.zero_().scatter_(1, options.argmax(1, keepdim=True), 1e4)
        # A tile of ne16 that two precisions share is run twice.
        full = {n: search.get_cost(n) for n in search.cost_specification if n != "ne16"}
        for seed in range(2):
            randomise(search, seed)
            for name, most in full.items():
                assert search.get_cost(name) <= most * (1 + 1e-6), name


@parametrised(case for case in CASES if not (case.quantizing and case.net in UNREACHED))
def test_the_task_reaches_every_mask(case: Case) -> None:
    search = fresh(case).train()
    task_loss(search, given(case)).backward()
    assert not set(untouched(search)) - dead(search)


@every_case
def test_the_cost_reaches_every_mask(case: Case) -> None:
    search = fresh(case)
    for undecided in (False, True):
        if undecided:
            between(search, seed=0)
        search.zero_grad()
        relative_cost(search).backward()
        missed = [name for name in untouched(search) if name not in unpriced(search)]
        assert not missed, f"undecided: {undecided}"


def dead(search: Search) -> set[str]:
    """Return the choices whose results the net itself throws away, as a ReLU may.

    A norm that is folded no longer centres what a ReLU reads. Those of a tensor are dead that is
    read by dead layers only.
    """
    names = set()
    reading: dict[str, list[bool]] = {}
    for number, method in enumerate(search.each_method()):
        for weight in method.layers if isinstance(method, QuantizedMethod) else ():
            parameter = dict(search.model.named_parameters())[weight.name]
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            moved = gradient.transpose(0, weight.layer.axis).flatten(1).any(1)
            moved = moved if weight.by_channel else moved.any()[None]
            point = f"methods.{number}.activations.logits[{weight.layer.point}]"
            reading.setdefault(point, []).append(bool(moved.any()))
            rows = (~moved).nonzero().flatten() + weight.rows.start
            names |= {f"methods.{number}.weights.logits[{row}]" for row in rows.tolist()}
    return names | {point for point, live in reading.items() if not any(live)}


def unpriced(search: Search) -> set[str]:
    """Return the choices of tensors that no layer with a weight reads: they have no bitops."""
    names = set()
    for number, method in enumerate(search.each_method()):
        if isinstance(method, QuantizedMethod):
            read = {weight.layer.point for weight in method.layers}
            free = set(range(len(method.plans))) - read
            names |= {f"methods.{number}.activations.logits[{point}]" for point in free}
    return names


def untouched(search: Search) -> Iterator[str]:
    """Yield the trainable masks without a gradient."""
    for name, parameter, place in masks(search):
        gradient = parameter.grad
        assert gradient is None or bool(gradient.isfinite().all()), name
        reached = gradient is not None and bool(gradient[place].any())
        if parameter.requires_grad and not reached:
            yield name


@most_cases
def test_slopes_of_costs_are_their_finite_differences(case: Case) -> None:
    search = fresh(case).double()
    between(search, seed=3)
    parameters = dict(search.named_nas_parameters())
    for cost in smooth(search):
        search.zero_grad()
        value = search.get_cost(cost, relative=True)
        if value.requires_grad:  # the peak of memory may be where nothing is searched
            value.backward()
        for name, parameter in parameters.items():
            slope = parameter.grad
            for entry in range(0, parameter.numel(), max(1, parameter.numel() // 6)):
                found = 0.0 if slope is None else float(slope.flatten()[entry])
                # Probabilities are float32 whatever the logits are.
                step = 1e-2 if name.endswith("logits") else 1e-5
                expected = finite_difference(search, cost, parameter, entry, step)
                assert found == pytest.approx(expected, rel=1e-3, abs=step / 100), (cost, name)


@torch.no_grad()
def finite_difference(
    search: Search, cost: str, parameter: Tensor, entry: int, step: float
) -> float:
    values, usual = parameter.view(-1), float(parameter.flatten()[entry])
    costs = []
    for sign in (1, -1):
        values[entry] = usual + sign * step
        costs.append(float(search.get_cost(cost, relative=True)))
    values[entry] = usual
    return (costs[0] - costs[1]) / (2 * step)


@every_case
def test_the_users_model_is_left_alone(case: Case) -> None:
    model, example = subject(case)
    before = look(model)
    search = build(case, model)
    task_loss(search.train(), example).backward()
    search.export()
    assert look(model) == before
    assert difference(model, subject(case)[0], example) == 0
    made, _ = subject(case)
    twin = made.state_dict()
    assert all(torch.equal(value, twin[key]) for key, value in model.state_dict().items())


def look(model: nn.Module) -> list[Any]:
    """All about a model but its numbers."""
    modules = [
        (path, type(module), module.training, sorted(vars(module)), hooks(module))
        for path, module in model.named_modules()
    ]
    parameters = [
        (name, id(p), p.requires_grad, p.grad is None, p._version)
        for name, p in model.named_parameters()
    ]
    return [*modules, *parameters]


def hooks(module: nn.Module) -> int:
    return sum(len(vars(module)[name]) for name in vars(module) if name.endswith("_hooks"))


@every_case
def test_an_export_is_of_the_users_classes(case: Case) -> None:
    model, _ = subject(case)
    exported = fresh(case, seed=1).export()
    own: dict[str, set[str]] = {}
    for module in model.modules():
        own.setdefault(kind(module), set()).update(vars(module))
    documented = DOCUMENTED | FOLDED if case.quantizing else DOCUMENTED
    added = {"_search_around", "_search_transforms"} if case.quantizing else set()
    if case.net != "OnlyAChoice":
        assert kind(exported) == kind(model)
    hooked = max(hooks(module) for module in model.modules())  # a parametrization has one
    for path, module in exported.named_modules():
        assert hooks(module) <= hooked, path
        if kind(module) in own and not (type(module).__name__ in FOLDED and case.quantizing):
            assert set(vars(module)) - added <= own[kind(module)], path
        else:
            assert type(module).__name__ in documented, path


def kind(module: nn.Module) -> str:
    """By name: a parametrized module has a class of its own."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


@every_case
def test_an_export_is_ready_for_training(case: Case) -> None:
    search, example = fresh(case, seed=1), given(case)
    task_loss(search.train(), example).backward()
    exported = search.export()
    shared = {p.data_ptr() for p in search.parameters() if p.numel()}
    for name, parameter in exported.named_parameters():
        assert parameter.is_leaf and parameter.grad is None, name
        assert parameter.data_ptr() not in shared, name
    before = copy.deepcopy(search.state_dict())
    task_loss(exported.train(), example).backward()
    torch.optim.SGD(exported.parameters(), lr=0.1).step()
    for key, value in search.state_dict().items():
        assert not isinstance(value, Tensor) or torch.equal(value, before[key]), key


@every_case
def test_an_export_trains_what_the_net_trains(case: Case) -> None:
    model, example = subject(case)
    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    exported = built(case).export()
    for name, parameter in exported.named_parameters():
        assert parameter.requires_grad == trained.get(name, True), name
    if not case.branching:
        for net in (model, exported):
            task_loss(net.train(), example).backward()
        new = {n for n, _ in exported.named_parameters()} - set(trained)  # biases of folded norms
        gone = set(trained) - {n for n, _ in exported.named_parameters()}
        assert case.quantizing or not new | gone
        assert reached(exported) - new == reached(model) - gone


def reached(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.grad is not None}


every_kind = pytest.mark.parametrize(
    ("method", "variant"),
    [
        pytest.param(*kind, marks=[pytest.mark.slow] if Case(kind[0], "", kind[1]).slow else [])
        for kind in KINDS
    ],
)


def cases_of(method: str, variant: str) -> list[Case]:
    return [case for case in CASES if (case.method, case.variant) == (method, variant)]


@every_kind
def test_most_nets_have_a_price_on_hardware(method: str, variant: str) -> None:
    cases = cases_of(method, variant)
    priced = [c for c in cases if c.hardware.keys() & built(c).cost_specification.keys()]
    assert len(priced) >= len(cases) / 2


@every_kind
def test_nearly_every_net_has_channels_to_remove(method: str, variant: str) -> None:
    cases = cases_of(method, variant)
    keeping = {case.net for case in cases if not built(case).channels.axes}
    # Their channels are returned, or divided by numbers in the code.
    assert keeping <= {"TupleOutputs", "OnlyAChoice", "Split"}


@pytest.mark.parametrize(("method", "net"), [(m, net) for m in UNSEARCHED for net in UNSEARCHED[m]])
def test_a_net_that_cannot_be_searched_raises(method: str, net: str) -> None:
    _, message = UNSEARCHED[method][net]
    model, example = NETS[net]()
    with pytest.raises(Exception, match=message):
        task_loss(METHODS[method](model, example).train(), example).backward()
