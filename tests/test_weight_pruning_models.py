"""Weight pruning of models: training, checkpoints, shared weights, other parametrizations."""

import copy
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from hwcost import trace
from hwcost.errors import HwcostWarning, SearchError, UnknownName
from hwcost.search import PIT, PruneCell, PruneFiller, WeightPruning, prune_weights

MAGNITUDE = PruneCell(threshold=0.5, prune_filler="Magnitude")


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 2, 2), nn.Flatten(), nn.Linear(98, 5)
    )


def weight(module: nn.Module) -> Tensor:
    value = module.weight
    assert isinstance(value, Tensor)
    return value


def zeros(module: nn.Module) -> Tensor:
    return weight(module).eq(0)


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(6, 3, 8, 8), torch.randint(5, (6,))


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    x, y = batch()
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()


OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9, weight_decay=0.1),
    "adam": lambda m: torch.optim.Adam(m.parameters(), 0.1, weight_decay=0.1),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), 0.1),
}
each_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
each_filler = pytest.mark.parametrize("filler", list(PruneFiller))


@pytest.mark.parametrize("filler", ["Random", "Magnitude"])
def test_every_layer_has_its_share_of_zeros(filler: str) -> None:
    pruning = prune_weights(net(), PruneCell(threshold=0.25, prune_filler=filler))
    sizes = {"0": 108, "2": 32, "4": 490}
    assert pruning.sparsity() == {k: -(-n // 4) / n for k, n in sizes.items()}


def test_iternonstruct_takes_all_weights_up_to_a_multiple_of_delta() -> None:
    layer = nn.Linear(5, 1, bias=False)
    layer.weight.data = torch.tensor([[0.05, -0.19, 0.2, 0.31, -0.4]])
    prune_weights(layer, PruneCell(threshold=0.3, prune_filler="IterNonStruct", delta=0.1))
    assert layer.weight[0].tolist() == pytest.approx([0, 0, 0, 0.31, -0.4])


def test_identity_leaves_a_model_as_it_is() -> None:
    model = net()
    prune_weights(model, PruneCell("Identity"))
    assert type(model[0]) is nn.Conv2d and list(model.state_dict()) == list(net().state_dict())


@each_optimizer
@pytest.mark.parametrize("before", [True, False], ids=["made before", "made after"])
def test_zeros_stay_zeros_in_training(
    make: Callable[[nn.Module], torch.optim.Optimizer], before: bool
) -> None:
    model = net()
    optimizer = make(model)
    step(model, optimizer)  # momentum of all weights
    prune_weights(model, MAGNITUDE)
    optimizer = optimizer if before else make(model)
    mask, start = zeros(model[0]), weight(model[0]).detach().clone()
    for _ in range(4):
        step(model, optimizer)
    assert (weight(model[0])[mask] == 0).all() and int(mask.sum()) == 54
    assert (weight(model[0])[~mask] != start[~mask]).all()


def test_gradients_under_the_mask_are_zero() -> None:
    model = net()
    parameter = weight(model[0])
    prune_weights(model, MAGNITUDE)
    x, y = batch()
    nn.functional.cross_entropy(model(x), y).backward()
    mask = zeros(model[0])
    assert parameter.grad is not None
    assert (parameter.grad[mask] == 0).all() and (parameter.grad[~mask] != 0).any()


@pytest.mark.parametrize(
    ("cell", "shares"),
    [
        (PruneCell("Gradual", threshold=0.2), [0.1, 0.1, 0.15, 0.15, 0.2, 0.2, 0.2]),
        (PruneCell("Gradual", stepsize=1, unit="epochs"), [0.1, 0.1, 0.15, 0.15, 0.2, 0.2, 0.2]),
        (PruneCell("Gradual", stepsize=1, unit="steps"), [0.1, 0.15, 0.15, 0.2, 0.2, 0.2, 0.2]),
        (PruneCell("Gradual", stepsize=20), [0.1, 0.1, 0.1, 0.15, 0.15, 0.15, 0.15]),
        (PruneCell("Gradual", stepsize=5, gamma=0.04), [0.1, 0.18, 0.18, 0.2, 0.2, 0.2, 0.2]),
    ],
    ids=["default", "epochs", "steps", "samples", "several at once"],
)
def test_a_gradual_cell_moves_when_its_unit_says(cell: PruneCell, shares: list[float]) -> None:
    layer = nn.Linear(10, 10)
    pruning = prune_weights(layer, cell)
    seen = [pruning.thresholds()["weight"]]
    for _ in range(3):  # epochs of one step of ten samples
        pruning.step(samples=10)
        seen.append(pruning.thresholds()["weight"])
        pruning.epoch()
        seen.append(pruning.thresholds()["weight"])
    assert seen == shares
    assert pruning.sparsity()["weight"] == shares[-1]


@each_filler
def test_masks_of_a_gradual_cell_only_grow(filler: str) -> None:
    model = net()
    optimizer = OPTIMIZERS["sgd"](model)
    pruning = prune_weights(model, PruneCell("Gradual", 0.9, filler, gamma=0.2))
    kept = [~zeros(model[4])]
    for _ in range(5):
        step(model, optimizer)
        pruning.epoch()
        kept.append(~zeros(model[4]))
    assert not any((now & ~old).any() for old, now in pairwise(kept))
    assert pruning.sparsity()["4"] >= 0.9


def test_a_step_without_samples_is_an_error_where_they_count() -> None:
    pruning = prune_weights(net(), PruneCell("Gradual", stepsize=100))
    with pytest.raises(SearchError, match=r"layer '0' waits for samples; call step\(samples="):
        pruning.step()


def test_an_epoch_without_steps_is_an_error_where_they_count() -> None:
    pruning = prune_weights(net(), PruneCell("Gradual", stepsize=100, unit="steps"))
    with pytest.raises(SearchError, match="layer '0' waits for steps, and the epoch had none"):
        pruning.epoch()


@pytest.mark.parametrize("samples", [0, -3, 2.5, True])
def test_samples_are_counted_in_whole_numbers(samples: int) -> None:
    with pytest.raises(SearchError, match="expected a whole number above 0"):
        prune_weights(net(), MAGNITUDE).step(samples)


@each_filler
def test_a_checkpoint_continues_bit_by_bit(filler: str) -> None:
    cell = PruneCell("Gradual", 0.6, filler, stepsize=12)
    one = net()
    first = prune_weights(one, cell)
    optimizer = torch.optim.SGD(one.parameters(), 0.1)
    step(one, optimizer)
    first.step(samples=18)  # half way between two updates
    two = net()
    second = prune_weights(two, cell)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    states = []
    for model, pruning in ((one, first), (two, second)):
        torch.manual_seed(1)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(5):
            step(model, optimizer)
            pruning.step(samples=6)
        pruning.epoch()
        states.append(model.state_dict())
    assert first.thresholds() == second.thresholds()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_remove_leaves_plain_layers_with_zeros() -> None:
    model = net()
    pruning = prune_weights(model, MAGNITUDE)
    x, _ = batch()
    before, values = model(x), weight(model[0]).detach().clone()
    pruning.remove()
    assert type(model[0]) is nn.Conv2d and list(model.state_dict()) == list(net().state_dict())
    assert torch.equal(model(x), before) and torch.equal(weight(model[0]), values)


def test_parameters_stay_the_same_objects() -> None:
    model = net()
    before = list(map(id, model.parameters()))
    pruning = prune_weights(model, MAGNITUDE)
    assert set(map(id, model.parameters())) == set(before)
    pruning.remove()
    assert set(map(id, model.parameters())) == set(before)


def test_a_removed_pruning_counts_no_more() -> None:
    pruning = prune_weights(net(), MAGNITUDE)
    pruning.remove()
    for call in (pruning.step, pruning.epoch, pruning.remove):
        with pytest.raises(SearchError, match="the pruning was removed"):
            call()


def test_removing_what_never_moved_warns() -> None:
    pruning = prune_weights(nn.Linear(8, 8), PruneCell("Gradual", 0.5))
    with pytest.warns(
        HwcostWarning, match=r"pruned to 0.1, its start.*0.5: no epochs were counted"
    ):
        pruning.remove()


def test_a_copy_is_made_permanent_without_the_original() -> None:
    model = net()
    prune_weights(model, MAGNITUDE)
    other = copy.deepcopy(model)
    WeightPruning.of(other).remove()
    x, _ = batch()
    assert type(other[0]) is nn.Conv2d and torch.equal(model(x), other(x))
    assert WeightPruning.of(model).sparsity()["0"] == 0.5


def test_a_pruning_shows_its_shares() -> None:
    assert repr(prune_weights(net(), MAGNITUDE)) == "WeightPruning(0: 0.5, 2: 0.5, 4: 0.5)"


def test_a_model_without_pruning_has_no_handle() -> None:
    with pytest.raises(SearchError, match="no weight of Sequential is pruned"):
        WeightPruning.of(net())


def test_a_global_share_is_one_of_all_layers() -> None:
    model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False))
    model[0].weight.data = torch.arange(1.0, 101).view(10, 10)
    model[1].weight.data = torch.arange(201.0, 301).view(10, 10)
    pruning = prune_weights(model, MAGNITUDE, scope="global")
    assert pruning.sparsity() == {"0": 1.0, "1": 0.0}


def test_a_global_gradual_share_moves_in_all_layers_and_their_copies() -> None:
    model = net()
    prune_weights(model, PruneCell("Gradual", 0.5, "Magnitude", gamma=0.4), scope="global")
    other = copy.deepcopy(model)
    pruning = WeightPruning.of(other)
    pruning.epoch()
    total = sum(int((zeros(other[i])).sum()) for i in (0, 2, 4))
    assert total == (108 + 32 + 490) // 2


def test_a_global_share_needs_magnitude() -> None:
    with pytest.raises(SearchError, match="layer '0': the filler Random prunes layer by layer"):
        prune_weights(net(), PruneCell(), scope="global")


def test_an_unknown_scope_is_an_error() -> None:
    with pytest.raises(SearchError, match="scope is 'model'; expected 'layer' or 'global'"):
        prune_weights(net(), MAGNITUDE, scope="model")  # type: ignore[arg-type]


def test_a_name_goes_before_patterns_and_ignored_layers_stay() -> None:
    model = net()
    cells = {"*": MAGNITUDE, "4": PruneCell(threshold=0.1, prune_filler="Magnitude")}
    assert prune_weights(model, cells, ignore=["2"]).sparsity() == {"0": 0.5, "4": 0.1}


CHOICES = {
    "unknown": ({"conv": MAGNITUDE}, (), r"no layer to prune is named 'conv'; known: 0, 2, 4"),
    "ignored unknown": ({"0": MAGNITUDE}, ("9.*",), r"no layer to prune is named '9\.\*'"),
    "no layer": ({"1": MAGNITUDE}, (), "'1': ReLU is no convolution and no linear layer"),
    "two patterns": ({"*": MAGNITUDE, "0*": PruneCell()}, (), r"layer '0' fits '\*' and '0\*'"),
    "no cell": ({"0": 0.5}, (), "the cell of '0' is 0.5; expected a PruneCell"),
}


@pytest.mark.parametrize(("cells", "ignore", "message"), CHOICES.values(), ids=CHOICES)
def test_names_that_say_nothing_are_errors(
    cells: dict[str, PruneCell], ignore: tuple[str, ...], message: str
) -> None:
    with pytest.raises((SearchError, UnknownName), match=message):
        prune_weights(net(), cells, ignore=ignore)


def test_a_container_is_named_by_its_layers() -> None:
    with pytest.raises(UnknownName, match=r"named 'body'; its layers are 'body\.\*'"):
        prune_weights(nn.ModuleDict({"body": net()}), {"body": MAGNITUDE})


def _with_nan() -> nn.Module:
    model = net()
    weight(model[4]).data[0, :2] = torch.nan
    return model


def _with_hook() -> nn.Module:
    model = net()
    prune.l1_unstructured(model[4], "weight", 0.5)
    return model


def _pruned() -> nn.Module:
    model = net()
    prune_weights(model, {"4": MAGNITUDE})
    return model


UNFIT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "NaN": (_with_nan, "layer '4': 2 of its 490 weights are NaN or infinite"),
    "lazy": (lambda: nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3)), "layer '1'.*run the model"),
    "meta": (lambda: nn.Sequential(nn.Linear(2, 2, device="meta")), "'0'.*on the meta device"),
    "complex": (
        lambda: nn.Sequential(nn.Linear(2, 2, dtype=torch.complex64)),
        "layer '0': its weight is torch.complex64; expected float16",
    ),
    "hook": (_with_hook, "layer '4': its weight is no parameter"),
    "pruned": (_pruned, r"layer '4': its weight is pruned already; remove\(\)"),
    "searched": (lambda: PIT(net(), batch()[0][:1]).model, "layer '0': it belongs to a search"),
    "no layer": (nn.ReLU, "ReLU has no convolution and no linear layer to prune"),
}


@pytest.mark.parametrize(("make", "message"), UNFIT.values(), ids=UNFIT)
def test_what_cannot_be_pruned_is_an_error_and_stays(
    make: Callable[[], nn.Module], message: str
) -> None:
    model = make()
    before = [type(module) for module in model.modules()]
    with pytest.raises(SearchError, match=message):
        prune_weights(model, PruneCell())
    assert [type(module) for module in model.modules()] == before


def test_no_module_is_an_error() -> None:
    with pytest.raises(SearchError, match=r"expected an nn\.Module to prune; got list"):
        prune_weights([], MAGNITUDE)  # type: ignore[arg-type]


def test_weights_that_become_nan_are_found_at_the_next_update() -> None:
    model = net()
    pruning = prune_weights(model, PruneCell("Gradual", prune_filler="IterNonStruct"))
    with torch.no_grad():
        next(p for p in model[2].parameters() if p.numel() == 32).fill_(torch.inf)
    with pytest.raises(SearchError, match=r"layer '2': .* of its 32 weights are NaN or infinite"):
        pruning.epoch()


def test_a_generator_makes_random_repeatable() -> None:
    def kept() -> Tensor:
        layer = nn.Linear(9, 9)
        prune_weights(layer, PruneCell(), generator=torch.Generator().manual_seed(3))
        return layer.weight != 0

    assert torch.equal(kept(), kept())


def test_only_random_draws_numbers() -> None:
    torch.manual_seed(3)
    prune_weights(nn.Linear(2, 2, device="cpu"), MAGNITUDE)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    nn.Linear(2, 2)
    assert torch.equal(drawn, torch.rand(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@each_filler
def test_other_types_of_numbers_are_pruned(filler: str, dtype: torch.dtype) -> None:
    layer = nn.Linear(16, 16, dtype=dtype)
    assert prune_weights(layer, PruneCell(prune_filler=filler)).sparsity()["weight"] >= 0.2
    assert layer.weight.dtype == dtype


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose3d])
def test_convolutions_of_every_rank_are_pruned(kind: type[nn.Conv1d]) -> None:
    assert prune_weights(kind(4, 4, 2, groups=2), MAGNITUDE).sparsity() == {"weight": 0.5}


def test_an_attention_is_pruned() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    pruning = prune_weights(layer, MAGNITUDE)
    names = {"self_attn.in_proj_weight", "self_attn.out_proj", "linear1", "linear2"}
    x = torch.randn(2, 3, 8)
    before = layer(x)
    pruning.remove()
    assert set(names) == set(WeightPruning.of(_again(layer)).sparsity())
    assert torch.allclose(layer(x), before, atol=1e-6)


def _again(layer: nn.Module) -> nn.Module:
    other = copy.deepcopy(layer)
    prune_weights(other, MAGNITUDE)
    return other


class Tied(nn.Module):
    """An output layer that shares the weight of an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.out = nn.Linear(4, 6, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.embedding(x))
        return y


def test_who_shares_a_weight_sees_the_same_zeros() -> None:
    model = Tied()
    pruning = prune_weights(model, PruneCell(threshold=0.5))
    assert torch.equal(model.embedding.weight, model.out.weight)
    before = model(torch.arange(6))
    pruning.remove()
    assert model.embedding.weight is model.out.weight
    assert torch.equal(model(torch.arange(6)), before)


def test_layers_that_share_a_weight_need_one_cell() -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    model["b"].weight = model["a"].weight
    with pytest.raises(SearchError, match="layers 'a', 'b' share one weight"):
        prune_weights(model, {"a": MAGNITUDE})


@pytest.mark.parametrize("after", [True, False])
def test_a_weight_norm_stays_when_the_mask_goes(after: bool) -> None:
    layer: nn.Module = nn.Linear(8, 8)
    if not after:
        parametrizations.weight_norm(layer)
    pruning = prune_weights(layer, MAGNITUDE)
    if after:
        nn.utils.parametrize.register_parametrization(layer, "weight", nn.Tanh())
    before = weight(layer).detach().clone()
    pruning.remove()
    assert nn.utils.parametrize.is_parametrized(layer, "weight")
    assert torch.equal(zeros(layer), before.eq(0)) and torch.allclose(weight(layer), before)


def test_zeros_that_a_parametrization_would_lose_are_refused() -> None:
    layer = parametrizations.orthogonal(nn.Linear(8, 8))
    pruning = prune_weights(layer, MAGNITUDE)
    with pytest.raises(SearchError, match="layer 'weight': the zeros cannot be made permanent"):
        pruning.remove()
    assert pruning.sparsity() == {"weight": 0.5}


def test_a_trace_of_a_pruned_model_is_that_of_the_model() -> None:
    plain, pruned = net(), net()
    prune_weights(pruned, MAGNITUDE)
    rows = [trace(m, input_shape=(3, 8, 8)).to_frame() for m in (plain, pruned)]
    columns = ["layer", "kind", "cin", "cout"]
    assert rows[0][columns].equals(rows[1][columns])
