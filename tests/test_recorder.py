"""The recorder writes down every call, and leaves model and torch as they were."""

import random
import threading
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from hwcost.errors import TraceError
from hwcost.recorder import record
from hwcost.recorder_shapes import OUTPUTS
from hwcost.recorder_values import Call, Recording
from tests.models import MODELS, Function


def ops(recording: Recording) -> list[str]:
    return [call.op.name.removeprefix("aten.") for call in recording.calls]


def call_of(recording: Recording, name: str, index: int = 0) -> Call:
    return [call for call in recording.calls if call.op.name == f"aten.{name}"][index]


@pytest.fixture(scope="module")
def simple() -> Recording:
    """A convolution and a linear layer with a flatten between."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Flatten(), nn.Linear(36, 5))
    return record(model, (torch.ones(2, 3, 8, 8),))


def test_every_call_is_recorded_views_included(simple: Recording) -> None:
    assert ops(simple) == ["convolution", "view", "linear"]


def test_arguments_are_kept_with_defaults_filled_in(simple: Recording) -> None:
    call = call_of(simple, "convolution")
    assert (call.arg("stride"), call.arg("padding"), call.arg("groups")) == ((2, 2), (0, 0), 1)
    assert len(call.args) == len(call.op.names)


def test_producers_are_edges_to_calls(simple: Recording) -> None:
    view = call_of(simple, "view")
    assert simple.tensors[view.args[0]].producer == 0
    assert simple.tensors[view.outputs[0]].producer == 1


def test_a_view_lies_in_the_storage_of_its_base(simple: Recording) -> None:
    view = call_of(simple, "view")
    base, result = simple.tensors[view.args[0]], simple.tensors[view.outputs[0]]
    assert base.storage == result.storage
    assert (base.shape, result.shape) == ((2, 4, 3, 3), (2, 36))


def test_parameters_are_known_by_name(simple: Recording) -> None:
    call = call_of(simple, "linear")
    names = [simple.parameters.get(ref) for ref in call.inputs]
    assert names == [None, "2.weight", "2.bias"]


def test_calls_know_their_module(simple: Recording) -> None:
    scopes = [simple.scopes[call.scope] for call in simple.calls]
    found = [(s.path, s.cls) for s in scopes]
    assert found == [("0", "Conv2d"), ("1", "Flatten"), ("2", "Linear")]


def test_composites_are_known_as_the_origin_of_calls(simple: Recording) -> None:
    assert [call.outer for call in simple.calls] == ["conv2d", "flatten", ""]


def test_a_shared_parameter_is_one_tensor() -> None:
    model, args = MODELS["language_model_with_tied_weights"]()
    recording = record(model, args)
    table, head = call_of(recording, "embedding"), call_of(recording, "linear")
    assert table.arg("weight") == head.arg("weight")


def test_a_module_called_twice_has_two_scopes() -> None:
    model, args = MODELS["residual_with_one_convolution_twice"]()
    recording = record(model, args)
    assert [s.call for s in recording.scopes if s.path == "c"] == [0, 1]


def test_an_op_in_place_makes_a_new_value_in_the_same_storage() -> None:
    recording = record(nn.ReLU(inplace=True), (torch.ones(3) * 2,))
    call = call_of(recording, "relu_")
    before, after = (recording.tensors[r] for r in (call.args[0], call.outputs[0]))
    assert call.args[0] != call.outputs[0]
    assert (before.storage, after.producer) == (after.storage, 0)


def test_a_long_sequence_is_one_call() -> None:
    recording = record(nn.LSTM(2, 3), (torch.ones(5000, 1, 2),))
    assert ops(recording).count("lstm") == 1


@pytest.mark.parametrize(
    "name, how",
    [
        ("vision_transformer", "meta"),
        ("tensors_as_attributes", "meta"),
        ("modules_in_a_plain_list", "meta"),
        ("scripted", "meta"),
        ("factory_without_a_device", "fake"),
        ("autocast", "fake"),
        ("branch_on_data", "real"),
        ("length_from_data", "real"),
        ("gradient_in_forward", "real"),
    ],
)
def test_a_model_runs_on_the_cheapest_tensors_that_do(name: str, how: str) -> None:
    model, args = MODELS[name]()
    assert record(model, args).how == how


def test_no_memory_is_taken_for_weights() -> None:
    with torch.device("meta"):
        model = nn.Linear(10**7, 10**7)
    assert ops(record(model, (torch.ones(1, 10**7),))) == ["linear"]


def state(model: nn.Module) -> list[Any]:
    """Everything that a run could change, by identity and by value."""
    found: list[Any] = []
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for key, value in module.__dict__.items():
            contents = list(value.items()) if isinstance(value, dict) else value
            found.append((name, key, id(value), repr(contents)))
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        found.append((name, id(tensor), tensor.device, tensor.requires_grad, tensor.tolist()))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_as_it_was(name: str) -> None:
    model, args = MODELS[name]()
    before = state(model)
    record(model, args)
    assert state(model) == before


def _set_attributes(m: Any, x: Tensor) -> Tensor:
    m.calls = m.calls + 1
    m.history.append(x)
    m.last = x
    m.register_buffer("late", x)
    m.register_forward_hook(lambda *_: None)
    m.inside.weight.requires_grad_(False)
    m.inside = nn.Linear(4, 4)
    return F.relu(m.inside(x))


def _write_tensors(m: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        m.inside.weight.mul_(2)
    m.scale.add_(1)
    m.state.copy_(x[0])
    return F.relu(m.inside(x) * m.scale)


def _on_data(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make a forward that only runs on real tensors."""
    return lambda m, x: forward(m, x) if float(x.sum()) > 0 else x


def _and_raise(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def raising(m: Any, x: Tensor) -> Tensor:
        forward(m, x)
        raise RuntimeError("no")

    return raising


def busy(forward: Callable[..., Tensor]) -> nn.Module:
    parts: dict[str, Any] = {"calls": 0, "history": [], "scale": torch.ones(4)}
    model = Function(forward, inside=nn.Linear(4, 4), **parts)
    model.register_buffer("state", torch.zeros(4))
    return model.train()


@pytest.mark.parametrize("forward", [_set_attributes, _write_tensors])
@pytest.mark.parametrize("real", [False, True], ids=["meta", "real"])
@pytest.mark.parametrize("raises", [False, True], ids=["returns", "raises"])
def test_what_a_forward_changes_is_undone(
    forward: Callable[..., Tensor], real: bool, raises: bool
) -> None:
    forward = _on_data(forward) if real else forward
    model = busy(_and_raise(forward) if raises else forward)
    before = state(model)
    if raises:
        with pytest.raises(TraceError, match="no"):
            record(model, (torch.ones(1, 4),))
    else:
        record(model, (torch.ones(1, 4),))
    assert state(model) == before


def test_the_example_is_not_written_to() -> None:
    example = torch.ones(1, 4)
    record(Function(lambda m, x: x.mul_(2) if float(x.sum()) else x), (example,))
    assert example.tolist() == [[1, 1, 1, 1]]


def test_eval_of_the_user_is_not_called() -> None:
    class Merging(nn.Linear):
        def train(self, mode: bool = True) -> "Merging":
            raise AssertionError("merged")

    assert ops(record(Merging(4, 4), (torch.ones(1, 4),))) == ["linear"]


def test_dropout_and_normalisation_are_in_evaluation_mode() -> None:
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(4)).train()
    recording = record(model, (torch.ones(2, 4),))
    assert ops(recording) == ["batch_norm"]
    assert call_of(recording, "batch_norm").arg("training") is False


def test_random_states_are_as_they_were() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        random.random()
        return x + torch.randn(4) if float(x.sum()) else x

    before = torch.get_rng_state(), random.getstate()
    record(Function(forward), (torch.ones(1, 4),))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


@pytest.mark.parametrize("raises", [False, True])
def test_the_switches_of_torch_are_as_they_were(raises: bool) -> None:
    forward = _and_raise(_set_attributes) if raises else _set_attributes
    flags = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    try:
        record(busy(forward), (torch.ones(1, 4),))
    except TraceError:
        assert raises
    assert (torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled) == flags
    assert not hooks._global_forward_hooks
    assert not hooks._global_forward_pre_hooks
    assert not torch.is_inference_mode_enabled()


def test_the_model_runs_and_trains_afterwards() -> None:
    model = nn.LSTM(2, 3)
    expected = deepcopy(model)(torch.ones(4, 1, 2))[0]
    record(model, (torch.ones(4, 1, 2),))
    result = model(torch.ones(4, 1, 2))[0]
    result.sum().backward()
    assert torch.equal(result, expected)
    assert all(p.grad is not None for p in model.parameters())


def test_modules_of_another_thread_are_not_recorded() -> None:
    other = nn.Linear(2, 2)

    def forward(m: Any, x: Tensor) -> Any:
        thread = threading.Thread(target=lambda: other(torch.ones(1, 2)))
        thread.start()
        thread.join()
        return m.inside(x)

    recording = record(Function(forward, inside=nn.Linear(4, 4)), (torch.ones(1, 4),))
    assert [scope.path for scope in recording.scopes] == ["", "inside"]


def test_an_exception_that_the_model_catches_does_not_move_later_modules() -> None:
    model, args = MODELS["an_exception_caught"]()
    recording = record(model, args)
    paths = [recording.scopes[call.scope].path for call in recording.calls]
    assert paths == ["b", "c"]


def test_a_lazy_layer_is_refused_by_name() -> None:
    model = nn.Sequential(nn.ReLU(), nn.LazyLinear(3))
    with pytest.raises(TraceError, match=r"layer '1' is not initialised.*run the model once"):
        record(model, (torch.ones(1, 4),))


def test_a_model_that_raises_is_named_where_it_does() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(5, 2)))
    with pytest.raises(TraceError, match=r"in layer '1\.0' \(Linear\): RuntimeError.*\(1, 4\)"):
        record(model, (torch.ones(1, 4),))


def test_an_error_is_one_line_and_has_its_cause() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        raise KeyError("first\nsecond")

    with pytest.raises(TraceError) as caught:
        record(Function(forward), (torch.ones(1),))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_interrupt_passes_and_leaves_the_model_whole() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        m.late = 1  # type: ignore[assignment]
        raise KeyboardInterrupt

    model = Function(forward)
    with pytest.raises(KeyboardInterrupt):
        record(model, (torch.ones(1),))
    assert not hasattr(model, "late")


def meta(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


LAST = meta(2, 4, 6, 8).to(memory_format=torch.channels_last)
X = meta(2, 4, 6, 8)

#: Calls whose outputs the recorder knows by rule, and torch by running.
RULED: dict[str, Callable[[], Any]] = {
    "conv": lambda: F.conv2d(X, meta(8, 2, 3, 3), None, 2, 1, 1, 2),
    "conv1d": lambda: F.conv1d(meta(2, 4, 9), meta(8, 4, 3), meta(8), 2, 1, 2),
    "conv3d": lambda: F.conv3d(meta(2, 4, 9, 7, 5), meta(8, 4, 3, 2, 1)),
    "conv of channels last": lambda: F.conv2d(LAST, meta(8, 4, 3, 3)),
    "conv without a batch": lambda: F.conv2d(X[0], meta(8, 4, 3, 3)),
    "conv transposed": lambda: F.conv_transpose2d(X, meta(4, 8, 3, 3), stride=2),
    "linear": lambda: F.linear(X, meta(5, 8), meta(5)),
    "linear on a vector": lambda: F.linear(meta(8), meta(5, 8)),
    "attention": lambda: F.scaled_dot_product_attention(X, meta(2, 4, 3, 8), meta(2, 4, 3, 7)),
    "batch norm": lambda: F.batch_norm(X, meta(4), meta(4), meta(4), meta(4)),
    "batch norm of channels last": lambda: F.batch_norm(LAST, meta(4), meta(4)),
    "layer norm": lambda: F.layer_norm(X, (6, 8), meta(6, 8), meta(6, 8)),
    "group norm": lambda: F.group_norm(X, 2, meta(4), meta(4)),
    "mean": lambda: X.mean((2, -1)),
    "mean kept": lambda: X.mean((1,), keepdim=True),
    "mean of channels last": lambda: LAST.mean((2, 3)),
    "cat": lambda: torch.cat([X, meta(2, 3, 6, 8)], 1),
    "cat last": lambda: torch.cat([X, X, X], -1),
    "cat of channels last": lambda: torch.cat([LAST, LAST], 1),
    "add": lambda: X + meta(4, 1, 8),
    "add of more dimensions": lambda: meta(8) + X,
    "add of channels last": lambda: LAST + LAST,
    "add of two layouts": lambda: LAST + X,
    "add of a number": lambda: X + 1,
    "add of two types": lambda: X + meta(8).double(),
    "add of integers": lambda: X + torch.empty(8, dtype=torch.int64, device="meta"),
    "add in place": lambda: X.clone().add_(meta(8)),
    "product": lambda: X * 2.5,
    "quotient": lambda: X / meta(2, 4, 6, 8),
    "quotient rounded": lambda: torch.div(X, 2, rounding_mode="floor"),
    "power": lambda: X**2,
    "relu": lambda: X.relu(),
    "relu of channels last": lambda: F.relu(LAST),
    "relu of a part": lambda: X[:, ::2].relu(),
    "gelu": lambda: F.gelu(X, approximate="tanh"),
    "relu6 in place": lambda: F.relu6(X.clone(), inplace=True),
    "lstm": lambda: nn.LSTM(8, 5, 2, device="meta", bidirectional=True, proj_size=3)(X[0]),
    "lstm with batch first": lambda: nn.LSTM(8, 5, batch_first=True, device="meta")(X[0]),
    "gru": lambda: nn.GRU(8, 5, 2, device="meta")(X[0]),
    "rnn without a batch": lambda: nn.RNN(8, 5, device="meta")(X[0, 0]),
}


def layouts(value: Any) -> list[tuple[Any, ...]]:
    tensors = [value] if isinstance(value, Tensor) else [t for v in value for t in layouts(v)]
    return [(t.shape, t.stride(), t.dtype) if isinstance(t, Tensor) else t for t in tensors]


@pytest.mark.parametrize("name", RULED)
def test_an_output_by_rule_is_the_output_of_torch(name: str) -> None:
    found: list[Any] = []

    def forward(m: nn.Module) -> None:
        found.append(RULED[name]())

    record(Function(forward))
    assert layouts(found[0]) == layouts(RULED[name]())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: F.conv2d(X, meta(8, 3, 3, 3)),
        lambda: F.conv2d(X, meta(8, 4, 9, 9)),
        lambda: F.linear(X, meta(5, 7)),
        lambda: F.batch_norm(X, meta(3), meta(3)),
        lambda: F.layer_norm(X, (7,)),
        lambda: X + meta(3),
        lambda: X.clone().add_(meta(3, 2, 4, 6, 8)),
        lambda: torch.cat([X, meta(2, 4, 5, 8)], 1),
        lambda: nn.LSTM(7, 5, device="meta")(X[0]),
    ],
)
def test_a_wrong_shape_is_an_error_as_in_torch(wrong: Callable[[], Any]) -> None:
    with pytest.raises(TraceError, match="RuntimeError"):
        record(Function(lambda m: wrong()))


def test_every_rule_belongs_to_an_operator() -> None:
    for name in OUTPUTS:
        _, packet, overload = name.split(".")
        assert overload in getattr(torch.ops.aten, packet).overloads()
