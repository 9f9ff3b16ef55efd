"""What a pruner does to a network, its optimizer and its averages, and what it refuses."""

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from hwcost.errors import HwcostError, HwcostWarning, SearchError, UnknownName
from hwcost.search import Pruner

X = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)


class Net(nn.Module):
    """Two convolutions, a depthwise one between them, and two linear layers behind a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.drop1 = nn.Dropout2d(0.25)
        self.conv2, self.bn2 = nn.Conv2d(8, 6, 3, stride=2), nn.BatchNorm2d(6)
        self.drop2 = nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(6 * 9, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(torch.relu(self.bn1(self.conv1(x))))
        x = torch.relu(self.bn2(self.conv2(self.drop1(x))))
        x = self.fc1(self.drop2(x.flatten(1)))
        out: Tensor = self.fc2(torch.relu(x))
        return out


@pytest.fixture
def net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net()


def loss(model: nn.Module, x: Tensor = X) -> Tensor:
    out: Tensor = model(x)
    return out.square().mean()


def step(model: nn.Module, optimizer: Optimizer) -> float:
    """One training step; dropout draws the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss(model)
            value.backward()
            return value

        return float(optimizer.step(closure).detach())  # type: ignore[arg-type,attr-defined]


def looks(model: nn.Module) -> tuple[str, dict[str, list[float]]]:
    """What can be seen of a model."""
    return repr(model), {k: v.flatten().tolist() for k, v in model.state_dict().items()}


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def pruned(model: nn.Module, path: str, units: Any = (0,), x: Any = X) -> nn.Module:
    Pruner(model, x).prune_model(path, units)
    return model


# A network


def test_parameters_are_the_same_objects(net: Net) -> None:
    before = {name: id(p) for name, p in net.named_parameters()}
    pruned(net, "conv1", [1, 3])
    assert before == {name: id(p) for name, p in net.named_parameters()}


def test_units_and_all_that_reads_them_go(net: Net) -> None:
    whole = copy.deepcopy(net)
    pruned(net, "conv1", [1, 3])
    left = [0, 2, 4, 5, 6, 7]
    for name in ("conv1.weight", "bn1.running_mean", "depthwise.weight", "depthwise.bias"):
        assert torch.equal(net.state_dict()[name], whole.state_dict()[name][left]), name
    assert torch.equal(net.conv2.weight, whole.conv2.weight[:, left])


def test_a_flatten_loses_a_block_of_inputs_for_each_unit(net: Net) -> None:
    whole = net.fc1.weight.detach().clone()
    pruned(net, "conv2", [2])
    assert torch.equal(net.fc1.weight, torch.cat([whole[:, :18], whole[:, 27:]], 1))


def test_what_is_removed_is_said_layer_by_layer(net: Net) -> None:
    removed = Pruner(net, X).prune_model("conv1", [3, 1])
    assert removed.units == {"conv1.weight": (1, 3), "depthwise.weight": (1, 3)}
    assert "conv1.weight: 2 units" in str(removed)


def test_indices_are_of_the_network_as_it_is_now(net: Net) -> None:
    whole = net.conv1.weight.detach().clone()
    pruner = Pruner(net, X)
    pruner.prune_model("conv1", [0])
    pruner.prune_model("conv1", [0])
    assert torch.equal(net.conv1.weight, whole[2:])


def test_a_norm_names_the_units_of_the_layer_before_it(net: Net) -> None:
    assert pruned(net, "bn1").get_submodule("conv1").out_channels == 7


def test_a_module_may_be_named_by_itself(net: Net) -> None:
    Pruner(net, X).prune_model(net.conv2, [0])
    assert net.conv2.out_channels == 5


def test_a_copy_is_pruned_by_modules_of_the_original(net: Net) -> None:
    before = looks(net)
    pruner = Pruner(net, X, inplace=False)
    pruner.prune_model(net.conv1, [0])
    assert looks(net) == before
    assert pruner.model.get_submodule("conv1").weight.shape[0] == 7  # type: ignore[index]


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_stays(net: Net, training: bool) -> None:
    net.train(training)
    net.bn2.eval()
    before = [module.training for module in net.modules()]
    pruned(net, "conv1")
    assert [module.training for module in net.modules()] == before


def test_statistics_and_random_numbers_are_not_touched(net: Net) -> None:
    state, mean = torch.get_rng_state(), net.bn2.running_mean.clone()  # type: ignore[union-attr]
    pruned(net, "conv1")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(net.bn2.running_mean, mean)  # type: ignore[arg-type]


def test_hooks_stay(net: Net) -> None:
    seen: list[int] = []
    net.conv1.register_forward_hook(lambda m, args, out: seen.append(out.shape[1]))
    net.conv1.weight.register_hook(lambda g: seen.append(g.shape[0]))
    net.conv1.weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.shape[0]))
    loss(net).backward()
    pruned(net, "conv1", [0, 1])
    seen.clear()
    loss(net).backward()
    assert seen == [6, 6, 6]


def test_channels_last_stays(net: Net) -> None:
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pruned(net, "conv1")
    assert net.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    assert not net.conv2.weight.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_type_stays(net: Net, dtype: torch.dtype) -> None:
    net.to(dtype)
    pruned(net, "conv1", x=X.to(dtype))
    assert {p.dtype for p in net.parameters()} == {dtype}


def test_frozen_layers_are_pruned_and_stay_frozen(net: Net) -> None:
    net.conv1.requires_grad_(False)
    net.depthwise.requires_grad_(False)
    pruned(net, "conv1")
    assert not net.conv1.weight.requires_grad and net.conv1.weight.shape[0] == 7
    loss(net).backward()
    assert net.conv1.weight.grad is None and net.conv2.weight.grad is not None


def test_tied_weights_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.same = nn.Linear(6, 6), nn.Linear(6, 6)
            self.inner, self.last = nn.Linear(6, 5), nn.Linear(5, 6)
            self.same.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(self.inner(self.same(torch.relu(self.first(x)))))
            return out

    model = Tied()
    pruned(model, "inner", x=torch.ones(2, 6))
    assert model.same.weight is model.first.weight
    assert model(torch.ones(2, 6)).shape == (2, 6)


def test_a_model_of_the_same_code_pruned_alike_takes_the_state(net: Net) -> None:
    other = Net()
    pruned(net, "conv1", [2])
    pruned(other, "conv1", [5])
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.eval()(X), net.eval()(X))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_pruned_model_is_copied_and_pickled(net: Net, again: Callable[[Net], Net]) -> None:
    pruned(net, "conv1")
    assert torch.equal(again(net).eval()(X), net.eval()(X))


def test_a_pruned_model_is_saved_whole(net: Net) -> None:
    file = io.BytesIO()
    torch.save(pruned(net, "conv1"), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert torch.equal(loaded.eval()(X), net.eval()(X))


def test_a_pruner_is_used_on_what_another_pruned(net: Net) -> None:
    pruned(net, "conv1")
    pruned(net, "conv2")
    assert net(X).shape == (2, 4)
    assert shapes(net)["conv2.weight"] == (5, 7, 3, 3)


def test_a_compiled_model_follows_its_pruned_module(net: Net) -> None:
    compiled = torch.compile(net.eval(), backend="eager")
    compiled(X)
    pruned(net, "conv1")
    assert torch.equal(compiled(X), net(X))


def test_a_compiled_model_is_pruned_itself(net: Net) -> None:
    compiled: Any = torch.compile(net.eval(), backend="eager")
    Pruner(compiled, X).prune_model("conv1", [0])
    assert net.conv1.out_channels == 7
    assert torch.equal(compiled(X), net(X))


def test_layers_that_were_replaced_are_looked_at_again(net: Net) -> None:
    pruner = Pruner(net, X)
    pruner.prune_model("conv1", [0])
    net.conv2, net.bn2 = nn.Conv2d(7, 9, 3, stride=2), nn.BatchNorm2d(9)
    net.fc1, net.fc2 = nn.Linear(81, 10), nn.Linear(10, 7)
    pruner.prune_model("conv2", [8])
    assert net(X).shape == (2, 7)
    assert (net.conv2.out_channels, net.fc1.in_features) == (8, 72)


def test_two_pruners_take_turns(net: Net) -> None:
    first, second = Pruner(net, X), Pruner(net, X)
    for pruner in (first, second, first, second):
        pruner.prune_model("conv1", [0])
    assert net.conv1.out_channels == 4
    assert net(X).shape == (2, 4)


def test_units_removed_in_inference_mode_are_trained_after(net: Net) -> None:
    with torch.inference_mode():
        pruner = Pruner(net, X)
        pruner.prune_model("conv1", [0])
        pruner.prune_model("conv2", [0])
        pruner.undo()
    loss(net).backward()
    assert net.conv1.weight.grad is not None


def test_settings_of_torch_do_not_matter(net: Net) -> None:
    other = copy.deepcopy(net)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
            pruned(net, "conv1", [0])
    finally:
        torch.set_default_dtype(torch.float32)
    assert looks(net) == looks(pruned(other, "conv1", [0]))


def test_a_loss_from_before_is_an_error_not_a_wrong_gradient(net: Net) -> None:
    old = loss(net)
    pruned(net, "conv1", [0])
    with pytest.raises(RuntimeError):
        old.backward()


def test_a_pruner_is_copied_with_its_model(net: Net) -> None:
    pruner = Pruner(net, X)
    pruner.prune_model("conv1", [0])
    other = copy.deepcopy(pruner)
    other.prune_model("conv1", [0])
    assert net.conv1.out_channels == 7
    assert other.model.get_submodule("conv1").weight.shape[0] == 6  # type: ignore[index]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_script_is_refused_and_stays_as_it_was(net: Net) -> None:
    script = torch.jit.script(net.eval())
    out = script(X)
    with pytest.raises(HwcostError):
        Pruner(script, X).prune_model("conv1", [0])
    assert torch.equal(script(X), out)


# Indices


INDICES: dict[str, tuple[Any, list[int]]] = {
    "list": ([5, 1], [1, 5]),
    "tuple": ((1, 5), [1, 5]),
    "set": ({1, 5}, [1, 5]),
    "range": (range(2), [0, 1]),
    "generator": ((i for i in (1, 5)), [1, 5]),
    "numpy": (np.array([1, 5]), [1, 5]),
    "numpy of uint16": (np.array([1, 5], dtype=np.uint16), [1, 5]),
    "numpy numbers": ([np.int64(1), np.int32(5)], [1, 5]),
    "tensor": (torch.tensor([1, 5]), [1, 5]),
    "tensor of uint8": (torch.tensor([1, 5], dtype=torch.uint8), [1, 5]),
    "tensors": ([torch.tensor(1), torch.tensor(5)], [1, 5]),
    "number": (5, [5]),
    "numpy number": (np.int64(5), [5]),
    "mask": (torch.arange(8) == 5, [5]),
    "numpy mask": (np.arange(8) == 5, [5]),
    "list of bools": ([False] * 7 + [True], [7]),
    "duplicates": ([5, 1, 5], [1, 5]),
    "empty": ([], []),
    "empty array": (np.array([]), []),
    "empty mask": (torch.zeros(8, dtype=torch.bool), []),
}


@pytest.mark.parametrize("title", INDICES)
def test_indices_may_be(net: Net, title: str) -> None:
    whole = net.conv1.weight.detach().clone()
    indices, due = INDICES[title]
    if title == "generator":
        indices = iter(due)
    pruned(net, "conv1", indices)
    assert torch.equal(net.conv1.weight, whole[[i for i in range(8) if i not in due]])


def test_removing_nothing_changes_nothing_and_cannot_be_undone(net: Net) -> None:
    pruner, before = Pruner(net, X), looks(net)
    assert pruner.prune_model("conv1", []).units == {}
    assert looks(net) == before
    with pytest.raises(SearchError, match="no step of pruning to undo"):
        pruner.undo()


# Mistakes


class Fixed(nn.Module):
    """Its code says how many numbers there are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(1024, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.conv(x).view(-1, 1024))  # fixed
        return out


def _fixed_line() -> int:
    with open(__file__, encoding="utf-8") as file:
        return next(n for n, line in enumerate(file, 1) if "# fixed" in line)


Wrong = Callable[[Pruner], object]

#: What is asked for, and what the message says.
MISTAKES: dict[str, tuple[Wrong, type[Exception], str]] = {
    "all units": (lambda p: p.prune_model("conv1", range(8)), SearchError, "all its 8 units"),
    "full mask": (lambda p: p.prune_model("conv1", [True] * 8), SearchError, "one must stay"),
    "out of range": (
        lambda p: p.prune_model("conv1", [8]),
        SearchError,
        r"layer 'conv1': there is no unit 8; expected 0 to 7",
    ),
    "negative": (lambda p: p.prune_model("conv1", [-1]), SearchError, "no unit -1"),
    "fractions": (lambda p: p.prune_model("conv1", [1.0]), SearchError, "no whole numbers"),
    "complex": (lambda p: p.prune_model("conv1", [1j]), SearchError, "no whole numbers"),
    "text": (lambda p: p.prune_model("conv1", "1"), SearchError, "no indices of units"),
    "bytes": (lambda p: p.prune_model("conv1", b"1"), SearchError, "no indices of units"),
    "None": (lambda p: p.prune_model("conv1", None), SearchError, "no indices of units"),
    "a slice": (lambda p: p.prune_model("conv1", slice(2)), SearchError, "no indices of units"),
    "ragged": (lambda p: p.prune_model("conv1", [[1, 2], [3]]), SearchError, "no indices"),
    "short mask": (
        lambda p: p.prune_model("conv1", [True, False]),
        SearchError,
        r"a mask of shape \(2,\) for 8 units",
    ),
    "misspelt": (lambda p: p.prune_model("conv3", [0]), UnknownName, "did you mean 'conv"),
    "another model's": (
        lambda p: p.prune_model(nn.Linear(3, 3), [0]),
        UnknownName,
        "this Linear is not a module of the model",
    ),
    "a parameter": (
        lambda p: p.prune_model(next(p.model.parameters()), [0]),  # type: ignore[arg-type]
        UnknownName,
        "this Parameter is not a module",
    ),
    "output": (
        lambda p: p.prune_model("fc2", [0]),
        SearchError,
        "layer 'fc2': unit 0 cannot be removed: the network returns them",
    ),
    "a container": (lambda p: p.prune_model("", [0]), UnknownName, "no units of its own"),
    "a dropout": (lambda p: p.prune_model("drop1", [0]), UnknownName, "no units of its own"),
    "direction": (
        lambda p: p.prune_module("conv1", [0], "output"),
        SearchError,
        "direction is 'output'; expected 'out' or 'in'",
    ),
    "in of all": (lambda p: p.prune_module("conv1", range(3), "in"), SearchError, "all its 3"),
    "no units by hand": (lambda p: p.prune_module("drop1", [0]), SearchError, "Dropout2d has no"),
    "original_len": (
        lambda p: p.prune_module("fc1", [0], "in", original_len=7),
        SearchError,
        "54 inputs are not a multiple of 7 units",
    ),
    "no parameter": (
        lambda p: p.prune_parameter("conv1", "wieght", [0]),
        UnknownName,
        "layer 'conv1' has no 'wieght'; did you mean 'weight'",
    ),
    "no axis": (
        lambda p: p.prune_parameter("conv1", "bias", [0], axis=1),
        SearchError,
        "it has 1 axes; there is none numbered 1",
    ),
    "cascade of another size": (
        lambda p: p.prune_model("conv1", [0], ["fc2"]),
        SearchError,
        "layer 'fc2' reads 10 units, layer 'conv1' makes 8",
    ),
    "cascade misspelt": (
        lambda p: p.prune_model("conv1", [0], ["bn7"]),
        UnknownName,
        "did you mean 'bn",
    ),
    "cascade is a name": (
        lambda p: p.prune_model("conv1", [0], "bn1"),
        SearchError,
        "cascading_modules is 'bn1'; expected a list",
    ),
    "cascade is a module": (
        lambda p: p.prune_model("conv1", [0], p.model.get_submodule("bn1")),  # type: ignore[arg-type]
        SearchError,
        "expected a list",
    ),
    "undo of nothing": (lambda p: p.undo(), SearchError, "no step of pruning to undo"),
}


@pytest.mark.parametrize("title", MISTAKES)
def test_a_mistake_is_explained_and_changes_nothing(net: Net, title: str) -> None:
    do, error, text = MISTAKES[title]
    optimizer = torch.optim.Adam(net.parameters())
    step(net, optimizer)
    before, state = looks(net), copy.deepcopy(optimizer.state_dict())
    with pytest.raises(error, match=text):
        do(Pruner(net, X, optimizer=optimizer))
    assert looks(net) == before
    assert str(optimizer.state_dict()) == str(state)


def test_a_fixed_size_is_named_with_its_line() -> None:
    model = Fixed()
    before = looks(model)
    line = rf"test_pruner\.py:{_fixed_line()}: .*view\(-1, 1024\)"
    with pytest.raises(SearchError, match=line):
        Pruner(model, X).prune_model("conv", [0])
    assert looks(model) == before


def test_one_mistake_after_a_good_step_can_be_undone_still(net: Net) -> None:
    before, pruner = looks(net), Pruner(net, X)
    pruner.prune_model("conv1", [0])
    with pytest.raises(SearchError):
        pruner.prune_model("conv1", [7])
    pruner.undo()
    assert looks(net) == before


def other_parameters() -> list[nn.Parameter]:
    return list(nn.Linear(2, 2).parameters())


#: Arguments of a pruner, the error, and what it says.
SET_UP: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no example": ({"example": None}, HwcostError, "needs an example input"),
    "wrong example": ({"example": torch.ones(1, 4, 8, 8)}, HwcostError, "raised in layer 'conv1'"),
    "two examples": ({"input_size": (3, 8, 8)}, HwcostError, "takes one of"),
    "wrong size": ({"example": None, "input_size": (3, 0, 8)}, HwcostError, "above 0"),
    "optimizer of another model": (
        {"optimizer": torch.optim.SGD(other_parameters(), 0.1)},
        SearchError,
        "SGD holds none of the model's parameters",
    ),
    "optimizer by name": ({"optimizer": "adam"}, SearchError, "optimizer is 'adam'"),
    "parameters": ({"optimizer": other_parameters()}, SearchError, "expected an Optimizer"),
    "ema of another model": ({"ema": nn.Linear(2, 2)}, SearchError, "Linear is no copy"),
    "ema of text": ({"ema": "ema"}, SearchError, "ema is 'ema'|ema is str"),
    "ema of another shape": (
        {"ema": {"conv1.bias": torch.ones(7)}},
        SearchError,
        r"ema: 'conv1.bias' has shape \(7,\); the model's has \(8,\)",
    ),
    "ema of other names": ({"ema": {"c1.bias": torch.ones(7)}}, SearchError, "none of the model"),
    "ema list": ({"ema": [torch.ones(2)]}, SearchError, "a list of 14 tensors"),
}


@pytest.mark.parametrize("title", SET_UP)
def test_a_pruner_is_set_up_wrong(net: Net, title: str) -> None:
    given, error, text = SET_UP[title]
    with pytest.raises(error, match=text):
        Pruner(net, **{"example": X, **given})


def test_a_wrapped_model_is_refused(net: Net) -> None:
    with pytest.raises(SearchError, match=r"prune model\.module, then make a new DataParallel"):
        Pruner(nn.DataParallel(net), X)


def test_a_layer_without_sizes_is_refused() -> None:
    with pytest.raises(HwcostError, match="layer '0' is not initialised"):
        Pruner(nn.Sequential(nn.LazyConv2d(4, 1)), X)


def test_a_step_over_layers_that_were_replaced_is_not_undone(net: Net) -> None:
    pruner = Pruner(net, X)
    pruner.prune_model("conv1", [0])
    net.conv1 = nn.Conv2d(3, 7, 3, padding=1)
    before = looks(net)
    with pytest.raises(SearchError, match="layers were replaced or resized since"):
        pruner.undo()
    assert looks(net) == before


def test_a_step_that_fails_half_way_leaves_all_as_it_was(net: Net) -> None:
    optimizer = torch.optim.Adam(net.parameters())
    step(net, optimizer)

    optimizer.state[net.fc1.weight]["exp_avg"] = _Locked(net.fc1.weight.shape)
    before, pruner = looks(net), Pruner(net, X, optimizer=optimizer)
    with pytest.raises(RuntimeError, match="locked"):
        pruner.prune_model("conv2", [0])
    assert looks(net) == before


def test_a_class_is_refused() -> None:
    with pytest.raises(SearchError, match="got the class 'Net'"):
        Pruner(Net, X)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given", [{"input_size": (3, 8, 8)}, {"input_size": [3, 8, 8]}, {"example": (3, 8, 8)}]
)
def test_an_input_size_stands_for_an_example(net: Net, given: dict[str, Any]) -> None:
    Pruner(net, **given).prune_model("conv1", [0])
    assert net(X).shape == (2, 4)


class _Locked(Tensor):
    """A tensor from which nothing can be selected."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.index_select:
            raise RuntimeError("locked")
        if func is Tensor.__deepcopy__:
            return args[0]
        return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]


# Optimizers


ALL = sorted(
    name
    for name, cls in vars(torch.optim).items()
    if isinstance(cls, type) and issubclass(cls, Optimizer) and cls is not Optimizer
)

#: Those that start anew, and one that takes no dense gradients.
ANEW = {"Adafactor", "LBFGS"}
SPARSE = {"SparseAdam"}


def matrices() -> nn.Module:
    """Some optimizers take nothing else."""
    layers = [nn.Linear(192, 8, bias=False), nn.Tanh(), nn.Linear(8, 4, bias=False)]
    return nn.Sequential(nn.Flatten(), *layers)


def make(name: str, parameters: Any) -> Optimizer:
    cls: Any = getattr(torch.optim, name)
    made: Optimizer = cls(parameters, lr=0.01)
    return made


def small_copy(model: nn.Module, optimizer: Optimizer) -> Any:
    """A copy of a pruned model with an optimizer that got the state."""
    small = copy.deepcopy(model)
    hidden = ("decoupled_weight_decay",) if type(optimizer) is torch.optim.AdamW else ()
    options = {key: value for key, value in optimizer.defaults.items() if key not in hidden}
    other = type(optimizer)(small.parameters(), **options)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return small, other


@pytest.mark.parametrize("name", sorted({*ALL} - ANEW - SPARSE))
def test_an_optimizer_goes_on_as_one_of_a_net_built_small(name: str) -> None:
    torch.manual_seed(0)
    model = matrices()
    optimizer = make(name, model.parameters())
    for _ in range(2):
        step(model, optimizer)
    Pruner(model, X, optimizer=optimizer).prune_model("1", [2, 5])
    small, other = small_copy(model, optimizer)
    for _ in range(2):
        step(model, optimizer)
        step(small, other)
    assert looks(model) == looks(small)


@pytest.mark.parametrize("name", sorted({*ALL} - ANEW - SPARSE))
def test_the_state_is_cut_where_the_parameter_is(name: str) -> None:
    model = matrices()
    optimizer = make(name, model.parameters())
    step(model, optimizer)
    weight = next(model.parameters())
    before = {k: v.clone() for k, v in optimizer.state[weight].items() if torch.is_tensor(v)}
    Pruner(model, X, optimizer=optimizer).prune_model("1", [0])
    for key, value in before.items():
        due = value[1:] if value.dim() else value
        assert torch.equal(optimizer.state[weight][key], due), key


OPTIONS: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "Adam fused": (torch.optim.Adam, {"fused": True}),
    "Adam foreach": (torch.optim.Adam, {"foreach": True}),
    "Adam amsgrad fused": (torch.optim.Adam, {"amsgrad": True, "fused": True}),
    "AdamW amsgrad": (torch.optim.AdamW, {"amsgrad": True, "weight_decay": 0.1}),
    "SGD nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "SGD fused": (torch.optim.SGD, {"momentum": 0.9, "fused": True}),
    "SGD plain": (torch.optim.SGD, {}),
    "RMSprop centered": (torch.optim.RMSprop, {"centered": True, "momentum": 0.9}),
    "Adagrad fused": (torch.optim.Adagrad, {"fused": True}),
    "NAdam foreach": (torch.optim.NAdam, {"foreach": True}),
}


@pytest.mark.parametrize("title", OPTIONS)
def test_an_optimizer_with_options_goes_on(net: Net, title: str) -> None:
    cls, options = OPTIONS[title]
    optimizer = cls(net.parameters(), lr=0.01, **options)  # type: ignore[call-arg]
    step(net, optimizer)
    Pruner(net, X, optimizer=optimizer).prune_model("conv1", [2, 5])
    small, other = small_copy(net, optimizer)
    step(net, optimizer)
    step(small, other)
    assert looks(net) == looks(small)


@pytest.mark.parametrize("name", sorted(ANEW))
def test_an_optimizer_that_cannot_be_cut_warns_and_starts_anew(name: str) -> None:
    model = matrices()
    optimizer = make(name, model.parameters())
    step(model, optimizer)
    with pytest.warns(HwcostWarning, match=f"{name} keeps a state of '1.weight'"):
        Pruner(model, X, optimizer=optimizer).prune_model("1", [0])
    fresh = copy.deepcopy(model)
    other = make(name, fresh.parameters())
    step(model, optimizer)
    step(fresh, other)
    assert looks(model) == looks(fresh)


def test_that_warning_points_at_the_users_line() -> None:
    model = matrices()
    optimizer = make("LBFGS", model.parameters())
    step(model, optimizer)
    pruner = Pruner(model, X, optimizer=optimizer)
    with pytest.warns(HwcostWarning) as caught:
        pruner.prune_model("1", [0])
    assert caught[0].filename == __file__


def test_an_optimizer_that_has_not_stepped_yet_goes_on(net: Net) -> None:
    optimizer = torch.optim.Adam(net.parameters())
    Pruner(net, X, optimizer=optimizer).prune_model("conv1", [0])
    assert np.isfinite(step(net, optimizer))


def test_parameter_groups_and_several_optimizers_go_on(net: Net) -> None:
    groups: Any = [{"params": net.conv1.parameters(), "lr": 0.1}, {"params": net.bn1.parameters()}]
    front = torch.optim.Adam(groups)
    rest = [p for name, p in net.named_parameters() if not name.startswith(("conv1", "bn1"))]
    back = torch.optim.SGD(rest, 0.1, momentum=0.9)
    for optimizer in (front, back):
        step(net, optimizer)
    Pruner(net, X, optimizer=[front, back]).prune_model("conv1", [0])
    assert front.state[net.conv1.weight]["exp_avg"].shape == net.conv1.weight.shape
    assert back.state[net.conv2.weight]["momentum_buffer"].shape == net.conv2.weight.shape
    assert [group["lr"] for group in front.param_groups] == [0.1, 0.001]
    assert np.isfinite([step(net, optimizer) for optimizer in (front, back)]).all()


def test_a_schedule_of_the_learning_rate_goes_on(net: Net) -> None:
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    step(net, optimizer)
    Pruner(net, X, optimizer=optimizer).prune_model("conv1", [0])
    step(net, optimizer)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_gradients_are_cut(net: Net) -> None:
    loss(net).backward()
    grad = net.conv2.weight.grad
    assert grad is not None
    pruned(net, "conv1", [0])
    assert torch.equal(net.conv2.weight.grad, grad[:, 1:])  # type: ignore[arg-type]


def test_accumulated_gradients_go_on(net: Net) -> None:
    net.eval()
    loss(net).backward()
    pruned(net, "conv1", [0])
    kept = net.conv1.weight.grad.clone()  # type: ignore[union-attr]
    alone = copy.deepcopy(net)
    alone.zero_grad()
    loss(net).backward()
    loss(alone).backward()
    assert net.conv1.weight.grad is not None and alone.conv1.weight.grad is not None
    torch.testing.assert_close(net.conv1.weight.grad, kept + alone.conv1.weight.grad)


def test_an_old_loss_may_stay_alive(net: Net) -> None:
    old = loss(net)
    old.backward(retain_graph=True)
    pruned(net, "conv1", [0])
    loss(net).backward()
    assert net.conv1.weight.grad is not None and old.requires_grad


def test_training_goes_on_in_mixed_precision(net: Net) -> None:
    optimizer, scaler = torch.optim.Adam(net.parameters()), torch.amp.GradScaler("cpu")
    pruner = Pruner(net, X, optimizer=optimizer)
    for turn in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(net)
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
        if turn < 2:
            pruner.prune_model("conv1", [0])
    assert net.conv1.out_channels == 6
    assert all(bool(p.isfinite().all()) for p in net.parameters())


# Averages


def averages(net: Net) -> Iterator[tuple[Any, Callable[[Any], Tensor]]]:
    yield copy.deepcopy(net), lambda ema: ema.conv2.weight
    yield AveragedModel(net), lambda ema: ema.module.conv2.weight
    yield copy.deepcopy(net.state_dict()), lambda ema: ema["conv2.weight"]
    yield {n: p.detach().clone() for n, p in net.named_parameters()}, lambda e: e["conv2.weight"]
    yield [p.detach().clone() for p in net.parameters()], lambda ema: ema[6]


@pytest.mark.parametrize("number", range(5))
def test_an_average_is_cut_with_its_model(net: Net, number: int) -> None:
    ema, weight = list(averages(net))[number]
    Pruner(net, X, ema=ema).prune_model("conv1", [0])
    assert torch.equal(weight(ema), net.conv2.weight)
    if isinstance(ema, nn.Module):
        assert torch.equal(ema.eval()(X), net.eval()(X))


def test_an_averaged_model_goes_on(net: Net) -> None:
    ema = AveragedModel(net, use_buffers=True)
    ema.update_parameters(net)
    Pruner(net, X, ema=ema).prune_model("conv1", [0])
    ema.update_parameters(net)
    torch.testing.assert_close(ema.eval()(X), net.eval()(X))


def test_several_averages_are_cut(net: Net) -> None:
    both: Any = [copy.deepcopy(net), dict(copy.deepcopy(net.state_dict()))]
    Pruner(net, X, ema=both).prune_model("conv1", [0])
    assert torch.equal(both[0].conv1.bias, both[1]["conv1.bias"])


def test_an_average_of_averages_numbers_is_undone(net: Net) -> None:
    ema = copy.deepcopy(net)
    before = looks(ema)
    pruner = Pruner(net, X, ema=ema)
    pruner.prune_model("conv1", [0])
    pruner.undo()
    assert looks(ema) == before


# Undo


def test_undo_twice_is_an_error(net: Net) -> None:
    pruner = Pruner(net, X)
    pruner.prune_model("conv1", [0])
    pruner.undo()
    with pytest.raises(SearchError, match="no step of pruning to undo"):
        pruner.undo()


def test_undo_takes_back_the_last_step_only(net: Net) -> None:
    pruner = Pruner(net, X)
    pruner.prune_model("conv1", [0])
    before = looks(net)
    pruner.prune_model("conv2", [0])
    pruner.undo()
    assert looks(net) == before


def test_after_undo_it_is_pruned_again(net: Net) -> None:
    other = copy.deepcopy(net)
    pruner = Pruner(net, X)
    pruner.prune_model("conv1", [0])
    pruner.undo()
    pruner.prune_model("conv1", [3])
    assert looks(net) == looks(pruned(other, "conv1", [3]))


def test_undo_after_training_gives_back_weights_and_momentum(net: Net) -> None:
    optimizer = torch.optim.Adam(net.parameters())
    step(net, optimizer)
    before, state = looks(net), str(optimizer.state_dict())
    gradients = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    pruner = Pruner(net, X, optimizer=optimizer)
    pruner.prune_model("conv1", [0])
    step(net, optimizer)
    pruner.undo()
    assert looks(net) == before
    assert str(optimizer.state_dict()) == state
    now = [p.grad for p in net.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(gradients, now, strict=True) if b is not None)


@pytest.mark.parametrize("how", ["list", "out", "parameter"])
def test_steps_by_hand_are_undone(net: Net, how: str) -> None:
    before, pruner = looks(net), Pruner(net, X)
    if how == "list":
        pruner.prune_model("conv1", [0], ["bn1", "depthwise", "drop1", "conv2"])
    elif how == "out":
        pruner.prune_module("conv1", [0])
    else:
        pruner.prune_parameter("conv1", "weight", [0])
    assert looks(net) != before
    pruner.undo()
    assert looks(net) == before
