"""Parts of a search on their own: changed classes, the table of decisions, masks, costs."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from hwcost import CostModel, UnknownName, Workload
from hwcost.errors import CostError, SearchError
from hwcost.search.costs import Specification
from hwcost.search.lean import LeanForward, is_lean
from hwcost.search.swap import add_transform, is_swapped, replace_forward, restore
from hwcost.search.table import Cell, Count, Table, Term
from hwcost.search.weights import Masks, WeightMask


class Halve:
    """A transform that pickles."""

    def __call__(self, module: nn.Module, parameter: Tensor) -> Tensor:
        return parameter / 2


class Twice:
    """A forward that pickles."""

    def __call__(self, module: nn.Linear, x: Tensor) -> Tensor:
        return 2 * nn.functional.linear(x, module.weight)


@pytest.fixture
def layer() -> nn.Linear:
    module = nn.Linear(3, 2, bias=False)
    add_transform(module, "weight", Halve())
    return module


def test_every_reader_sees_the_transformed_weight(layer: nn.Linear) -> None:
    stored = layer.state_dict()["weight"]
    x = torch.ones(1, 3)
    assert torch.equal(layer(x), x @ stored.T / 2)
    assert torch.equal(nn.functional.linear(x, layer.weight), x @ stored.T / 2)


def test_a_swapped_module_keeps_class_name_and_parameters(layer: nn.Linear) -> None:
    assert isinstance(layer, nn.Linear) and type(layer).__name__ == "Linear"
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    assert layer.weight.dtype == torch.float32


def test_transforms_apply_in_order(layer: nn.Linear) -> None:
    masks = Masks(lambda: torch.tensor([1.0, 0.0]))
    add_transform(layer, "weight", WeightMask(masks.add(torch.tensor([0, 1, -1]))))
    stored = layer.state_dict()["weight"]
    assert torch.equal(layer.weight, stored / 2 * torch.tensor([1.0, 0.0, 1.0]))


def test_a_swapped_module_survives_copies(layer: nn.Linear) -> None:
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert is_swapped(twin) and torch.equal(twin.weight, layer.weight)
        assert twin._parameters["weight"] is not layer._parameters["weight"]


def test_a_replaced_forward_runs_and_survives_pickle() -> None:
    layer = nn.Linear(3, 2, bias=False)
    expected = 2 * layer(torch.ones(1, 3))
    replace_forward(layer, Twice())
    assert torch.equal(layer(torch.ones(1, 3)), expected)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(torch.ones(1, 3)), expected)


def test_restore_gives_the_class_back(layer: nn.Linear) -> None:
    restore(layer)
    assert type(layer) is nn.Linear
    assert not [name for name in vars(layer) if "search" in name]


def test_a_masked_weight_has_the_gradient_of_a_product() -> None:
    weight = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    decisions = torch.rand(5, dtype=torch.float64, requires_grad=True)

    def masked(weight: Tensor, decisions: Tensor) -> Tensor:
        masks = Masks(lambda: decisions)
        mask = masks.add(torch.tensor([2, -1, 0]).view(1, 3, 1), torch.tensor([3, 4]))
        return WeightMask(mask)(nn.Identity(), weight)

    assert torch.autograd.gradcheck(masked, (weight, decisions))


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv1d(3, 4, 3, padding=1), (2, 3, 6)),
        (nn.Conv2d(4, 4, 3, 2, padding=1, groups=2, bias=False), (2, 4, 5, 5)),
        (nn.Conv2d(3, 2, (3, 1), dilation=2, padding_mode="circular", padding=1), (3, 7, 7)),
        (nn.Linear(3, 2), (2, 5, 3)),
    ],
)
def test_a_lean_layer_has_the_gradients_of_the_plain_one(
    module: nn.Module, shape: tuple[int, ...]
) -> None:
    module.double()
    stored = module.get_parameter("weight")
    entries = torch.arange(stored.shape[1]).view(1, -1, *[1] * (stored.dim() - 2))
    decisions = torch.rand(stored.shape[1], dtype=torch.float64, requires_grad=True)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    transform = WeightMask(Masks(lambda: decisions).add(entries))
    add_transform(module, "weight", transform)
    wanted = (x, decisions, *module.parameters())
    plain = module(x)
    expected = torch.autograd.grad(plain.square().sum(), wanted)
    assert is_lean(module)
    replace_forward(module, LeanForward(transform))
    lean = module(x)
    found = torch.autograd.grad(lean.square().sum(), wanted)
    assert torch.allclose(lean, plain)
    assert all(torch.allclose(a, b) for a, b in zip(found, expected, strict=True))


LINEAR = Workload.from_columns("linear", cin=[6.0, 4.0], cout=[4.0, 5.0])


def table(*cells: Cell, length: int) -> Table:
    return Table(LINEAR, cells, length)


def test_a_size_shrinks_with_what_is_alive() -> None:
    first = table(Cell(0, "cout", (Term(4, (Count((0, 1, 2, 3)),)),)), length=4)
    workload = first(torch.tensor([1.0, 0.5, 0.0, 1.0]))
    assert workload.column("cout").tolist() == [2.5, 5.0]
    assert workload.column("cin").tolist() == [6.0, 4.0]


def test_fixed_channels_stay() -> None:
    count = Count((0, 1), fixed=4)
    assert (
        table(Cell(0, "cin", (Term(6, (count,)),)), length=2)(torch.zeros(2)).column("cin")[0] == 4
    )


def test_counts_multiply_and_terms_add() -> None:
    half, all_of = Count((0, 1)), Count((2,))
    cell = Cell(1, "cin", (Term(3, (half, all_of)), Term(1)))
    assert table(cell, length=3)(torch.tensor([1.0, 0.0, 1.0])).column("cin")[1] == 2.5


def test_a_divided_size() -> None:
    cell = Cell(0, "weight", (Term(4, (Count((0,)),)),), per=(Term(2, (Count((1,)),)),))
    assert table(cell, length=2)(torch.tensor([0.5, 0.25])).column("weight")[0] == 4


def test_whole_numbers_stay_exact() -> None:
    entries = tuple(range(49))
    cell = Cell(0, "cin", (Term(49 * 7, (Count(entries),)),))
    for alive in range(1, 50):
        decisions = (torch.arange(49) < alive).float()
        assert table(cell, length=49)(decisions).column("cin")[0] == 7 * alive


def test_a_table_is_differentiable() -> None:
    cells = (
        Cell(0, "cout", (Term(4, (Count((0, 1)), Count((2,)))), Term(1, (Count((3,)),)))),
        Cell(1, "cin", (Term(8, (Count((0, 1)),)),), per=(Term(2, (Count((3,), 1),)),)),
    )
    priced = table(*cells, length=4)
    model = CostModel("counts", "params")
    start = torch.rand(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: model.total(priced(d)), (start,))


def test_costs_have_names() -> None:
    def rows(workload: Workload) -> Tensor:
        return workload.column("cout").sum()

    costs = Specification({"lat": "gap8_compute:latency", "rows": rows})
    assert costs.unit("lat") == "s" and costs.unit("rows") == ""
    assert costs.price("rows", LINEAR) == 9


@pytest.mark.parametrize(
    ("cost", "error", "message"),
    [
        ("gap8_compute", SearchError, "names no metric"),
        ("gap10:latency", UnknownName, "gap10"),
        ("gap8_compute:latncy", UnknownName, "did you mean 'latency'"),
        ({}, SearchError, "no cost"),
        (3, SearchError, "got int"),
    ],
)
def test_a_wrong_cost_is_an_error(cost: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Specification(cost)  # type: ignore[arg-type]


def test_an_unknown_name_of_a_cost_is_suggested() -> None:
    with pytest.raises(UnknownName, match="did you mean 'lat'"):
        Specification({"lat": "counts:params", "mem": "counts:macs"})["latt"]


def test_several_costs_need_a_name() -> None:
    with pytest.raises(SearchError, match="'a', 'b'"):
        Specification({"a": "counts:params", "b": "counts:macs"}).only()


def test_a_cost_must_be_a_scalar() -> None:
    with pytest.raises(CostError, match=r"a Tensor of shape \(2,\)"):
        Specification(lambda workload: workload.column("cin")).price("<lambda>", LINEAR)
