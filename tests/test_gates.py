"""Knobs: masks, kernels' masks, choices, and how they are sampled."""

import copy
import pickle
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search.gates import (
    ChoiceKnob,
    DilationMask,
    KernelBank,
    Mask,
    MaskBank,
    OrderedMask,
    Sampling,
    Schedule,
    straight_through,
    unit_weight,
)

MODES = ("soft", "gumbel", "hard", "hard+gumbel")


def mask(*alpha: float, multiple: int = 1) -> Mask:
    made = Mask(len(alpha), multiple)
    made.alpha.data = torch.tensor(alpha)
    return made


def ordered(*beta: float) -> OrderedMask:
    made = OrderedMask(len(beta) + 1)
    made.beta.data = torch.tensor(beta)
    return made


def slope(value: Tensor, parameter: Tensor) -> list[float]:
    return torch.autograd.grad(value, parameter)[0].tolist()


# Gradients


def test_straight_through_is_exactly_the_hard_value() -> None:
    soft = torch.tensor([0.1, 0.3, 1e-30])
    hard = torch.tensor([True, False, True])
    assert straight_through(hard, soft).tolist() == [1, 0, 1]


def test_straight_through_has_the_slope_of_the_soft_value() -> None:
    x = torch.tensor([0.1, 0.7], requires_grad=True)
    out = straight_through(x.detach() > 0.5, 3 * x)
    assert slope(out.sum(), x) == [3, 3]


def test_a_unit_weight_has_the_slope_of_a_logarithm() -> None:
    p = torch.tensor(0.25, requires_grad=True)
    assert unit_weight(p) == 1 and torch.autograd.grad(unit_weight(p), p)[0] == 4


# Masks


def test_a_mask_starts_whole() -> None:
    assert Mask(3).soft().tolist() == Mask(3).binary().tolist() == [1, 1, 1]


def test_members_at_the_threshold_stay() -> None:
    assert mask(0.5, 0.49, -0.6).hard().tolist() == [True, False, True]


def test_soft_values_are_at_most_one() -> None:
    assert mask(0.5, -1.0, -3.0).soft().tolist() == [0.5, 1, 1]


def test_the_most_salient_member_survives() -> None:
    assert mask(0.1, -0.3, 0.2).hard().tolist() == [False, True, False]


def test_of_equally_salient_members_the_first_survives() -> None:
    assert mask(0.0, 0.2, -0.2).hard().tolist() == [False, True, False]


def test_binary_and_hard_agree() -> None:
    m = mask(0.7, 0.1, -0.5)
    assert m.binary().tolist() == m.hard().float().tolist()


def test_a_mask_has_the_slope_of_the_absolute_value() -> None:
    m = mask(0.7, 0.1, -0.5)
    assert slope(m.binary().sum(), m.alpha) == [1, 1, -1]
    assert slope(m.soft().sum(), m.alpha) == [1, 1, -1]


def test_whole_masks_have_a_slope() -> None:
    m = Mask(2)
    assert slope(m.soft().sum(), m.alpha) == [1, 1]


def test_survivors_come_in_multiples_the_most_salient_first() -> None:
    m = mask(0.1, 0.9, 0.3, 0.6, 0.2, 0.7, multiple=2)
    assert m.hard().nonzero().flatten().tolist() == [1, 2, 3, 5]


@pytest.mark.parametrize("alive", range(11))
@pytest.mark.parametrize("multiple", [1, 3, 4, 16])
def test_how_many_survive(alive: int, multiple: int) -> None:
    m = mask(*[1.0] * alive, *[0.0] * (10 - alive), multiple=multiple)
    blocks = -(-max(alive, 1) // multiple)
    assert int(m.hard().sum()) == min(blocks * multiple, 10)


def test_projection_undoes_an_overshoot() -> None:
    m = mask(-7.0, 0.2, 3.0)
    m.project()
    assert m.alpha.tolist() == pytest.approx([-1, 0.2, 1])


def test_projection_leaves_recorded_graphs_valid() -> None:
    m = mask(2.0, 0.2)
    loss = m.alpha.square().sum()
    m.project()
    loss.backward()


def test_nan_is_refused_by_name() -> None:
    m = Mask(2, name="conv1")
    m.alpha.data[0] = torch.nan
    with pytest.raises(SearchError, match="mask 'conv1' is NaN"):
        m.hard()


@pytest.mark.parametrize("size", [0, -1, 2.0, True])
def test_sizes_are_whole_numbers(size: int) -> None:
    with pytest.raises(SearchError, match="size of mask 'mask'"):
        Mask(size)


# Many masks


def bank(sizes: list[int], multiples: list[int], seed: int) -> tuple[MaskBank, list[Mask]]:
    """Return a bank with random values, and the same masks one by one."""
    made, single = MaskBank(), []
    for number, (size, multiple) in enumerate(zip(sizes, multiples, strict=True)):
        made.add(f"layer.{number}", size, multiple)
        single.append(Mask(size, multiple))
    values = torch.rand(made.total, generator=torch.Generator().manual_seed(seed)) - 0.5
    # Values of one decimal are often equal; the second mask is often below the threshold.
    made.alpha.data = (values * 12).round() / 10
    for name, one in zip(made.places, single, strict=True):
        one.alpha.data = made[name].detach().clone()
    return made, single


@pytest.mark.parametrize("multiples", [[1, 1, 1, 1], [1, 2, 3, 4]])
@pytest.mark.parametrize("seed", range(8))
def test_a_bank_is_its_masks_one_after_another(multiples: list[int], seed: int) -> None:
    many, single = bank([5, 2, 7, 1], multiples, seed)
    for read in ("soft", "binary", "hard"):
        due = torch.cat([getattr(one, read)() for one in single])
        assert torch.equal(getattr(many, read)(), due)


@pytest.mark.parametrize("multiples", [[1, 1, 1, 1], [1, 2, 3, 4]])
def test_a_bank_equals_a_loop_over_its_members(multiples: list[int]) -> None:
    many, single = bank([5, 2, 7, 1], multiples, 0)
    due = []
    for one in single:
        salience = one.alpha.abs().tolist()
        ranked = sorted(range(one.size), key=lambda i: -salience[i])
        count = max(sum(s >= 0.5 for s in salience), 1)
        count = min(-(-count // one.multiple) * one.multiple, one.size)
        due += [number in ranked[:count] for number in range(one.size)]
    assert many.hard().tolist() == due


def test_a_bank_has_the_slopes_of_its_masks() -> None:
    many, single = bank([5, 2, 7, 1], [1] * 4, 3)
    scale = torch.arange(15.0)
    due = [
        slope(one.binary().dot(s), one.alpha)
        for one, s in zip(single, scale.split([5, 2, 7, 1]), strict=True)
    ]
    assert slope(many.binary().dot(scale), many.alpha) == [g for part in due for g in part]


def test_an_empty_bank_is_an_empty_vector() -> None:
    empty = MaskBank()
    assert [len(empty.soft()), len(empty.binary()), len(empty.hard())] == [0, 0, 0]


def test_a_bank_names_the_mask_that_is_nan() -> None:
    many, _ = bank([2, 2], [1, 1], 0)
    many.alpha.data[3] = torch.nan
    with pytest.raises(SearchError, match=r"mask 'layer\.1' is NaN"):
        many.hard()


def test_adding_a_mask_keeps_the_values_of_others() -> None:
    many = MaskBank()
    many.add("a", 2)
    many.alpha.data.fill_(0.2)
    assert many.add("b", 1) == slice(2, 3)
    assert many.alpha.tolist() == pytest.approx([0.2, 0.2, 1])
    assert many.binary().tolist() == [1, 0, 1]


def test_names_are_taken_once() -> None:
    many = MaskBank()
    many.add("a", 2)
    with pytest.raises(SearchError, match="'a' already"):
        many.add("a", 3)


# Ordered masks


def test_ordered_members_go_from_the_outside_in() -> None:
    assert ordered(0.3, 0.3, 0.3).hard().tolist() == [True, True, True, False]


def test_the_first_member_always_stays() -> None:
    zero = ordered(0.0, 0.0)
    assert zero.hard().tolist() == [True, False, False] and zero.soft().tolist() == [1, 0, 0]


def test_soft_members_are_sums_from_outside() -> None:
    assert ordered(0.5, 0.25, 0.5).soft().tolist() == [1, 1, 0.75, 0.5]


def test_only_members_at_the_border_have_a_slope() -> None:
    m = ordered(1.0, 0.5, 0.25)
    assert slope(m.soft().sum(), m.beta) == [0, 1, 2]
    assert slope(m.binary().sum(), m.beta) == [0, 1, 2]


def test_a_step_at_zero_has_a_slope() -> None:
    m = ordered(0.0, 0.0)
    assert slope(m.soft().sum(), m.beta) == [1, 2]


def test_an_overshoot_below_zero_reads_as_zero() -> None:
    assert ordered(0.0, -4.0).soft().tolist() == [1, 0, 0]


def test_a_cost_removes_all_members_but_one() -> None:
    m = OrderedMask(9)
    for _ in range(100):
        (grad,) = torch.autograd.grad(m.soft().sum(), m.beta)
        m.beta.data -= 0.1 * grad
        m.project()
    assert int(m.hard().sum()) == 1


@pytest.mark.parametrize("taps", range(1, 18))
def test_a_dilation_keeps_multiples_of_a_power_of_two(taps: int) -> None:
    m = DilationMask(taps)
    for off in range(len(m.gamma) + 1):
        m.gamma.data = torch.tensor([0.0] * off + [1.0] * (len(m.gamma) - off))
        assert m.hard().tolist() == [d % 2**off == 0 for d in range(taps)]


@pytest.mark.parametrize("taps", range(1, 18))
def test_every_state_of_gamma_is_a_dilation(taps: int) -> None:
    m = DilationMask(taps)
    valid = [[d % 2**i == 0 for d in range(taps)] for i in range(6)]
    for gamma in product([0.0, 0.3, 1.0], repeat=len(m.gamma)):
        m.gamma.data = torch.tensor(gamma)
        assert m.hard().tolist() in valid


def kernels(seed: int) -> tuple[KernelBank, list[Tensor], list[list[nn.Parameter]]]:
    """Return a bank with random values, what it should read, and the parameters of that."""
    many, due, parameters = KernelBank(), [], []
    generator = torch.Generator().manual_seed(seed)
    for number, (size, dilated) in enumerate([(2, False), (9, True), (3, True), (5, False)]):
        many.add(f"layer.{number}", size, dilated)
        masks = [OrderedMask(size), DilationMask(size)][: 1 + dilated]
        for m in masks:
            m.weights().data = torch.rand(len(m.weights()), generator=generator) * 1.2 - 0.6
        parameters.append([next(m.parameters()) for m in masks])
        due.append(torch.stack([m.binary() for m in masks]).prod(0))
        assert torch.equal(due[-1].bool(), torch.stack([m.hard() for m in masks]).all(0))
    many.beta.data = torch.cat([p[0].data for p in parameters])
    many.gamma.data = torch.cat([p[1].data for p in parameters if len(p) > 1])
    return many, due, parameters


@pytest.mark.parametrize("seed", range(6))
def test_a_bank_of_kernels_is_its_masks_one_after_another(seed: int) -> None:
    many, due, _ = kernels(seed)
    assert many.binary().tolist() == many.hard().tolist() == torch.cat(due).tolist()


def test_a_bank_of_kernels_has_the_slopes_of_its_masks() -> None:
    many, due, parameters = kernels(1)
    scale = torch.arange(float(many.total))
    torch.cat(due).dot(scale).backward()
    beta, gamma = torch.autograd.grad(many.binary().dot(scale), [many.beta, many.gamma])
    assert torch.equal(beta, torch.cat([p[0].grad for p in parameters]))  # type: ignore[misc]
    assert torch.equal(gamma, torch.cat([p[1].grad for p in parameters if len(p) > 1]))  # type: ignore[misc]


def test_soft_kernels_multiply_reach_and_dilation() -> None:
    many = KernelBank()
    many.add("a", 4, dilation=True)
    many.beta.data = torch.tensor([0.0, 0.5, 0.25])
    many.gamma.data = torch.tensor([0.25, 0.5])
    assert many.soft().tolist() == [1, 0.75 * 0.25, 0.75 * 0.75, 0.25 * 0.25]


def test_kernels_of_one_tap_have_nothing_to_decide() -> None:
    many = KernelBank()
    many.add("a", 1, dilation=True)
    assert many.soft().tolist() == [1] and many.hard().tolist() == [True]


def test_a_bank_of_kernels_refuses_nan() -> None:
    many = KernelBank()
    many.add("a", 3)
    many.beta.data[0] = torch.nan
    with pytest.raises(SearchError, match="'beta of kernels' is NaN"):
        many.hard()


# Choices


def knob(*logits: float, **options: object) -> ChoiceKnob:
    made = ChoiceKnob(len(logits), Sampling(**options))  # type: ignore[arg-type]
    made.logits.data = torch.tensor(logits)
    return made


def test_choices_start_equal() -> None:
    assert ChoiceKnob(4).probabilities().tolist() == [0.25] * 4


def test_the_temperature_divides_the_logits() -> None:
    due = torch.tensor([0.5, 1.0]).softmax(0)
    assert torch.allclose(knob(1.0, 2.0, temperature=2.0).probabilities(), due)


@pytest.mark.parametrize("mode", MODES)
def test_the_coldest_temperature_is_finite(mode: str) -> None:
    made = knob(300.0, -300.0, 299.0, temperature=1e-6, mode=mode)
    made.sample()[0].backward()
    assert made.logits.grad is not None and bool(made.logits.grad.isfinite().all())


def test_noise_leaves_probabilities_to_the_logits() -> None:
    due = torch.tensor([1.0, 2.0]).softmax(0)
    made = knob(1.0, 2.0, temperature=5.0, mode="gumbel")
    assert torch.allclose(made.probabilities(), due)


@pytest.mark.parametrize("mode", MODES)
def test_weights_add_up_to_one(mode: str) -> None:
    assert float(knob(0.3, 0.1, 0.0, mode=mode).sample().detach().sum()) == pytest.approx(1)


def test_hard_takes_the_most_probable_one() -> None:
    made = knob(0.3, 0.5, 0.0, mode="hard")
    assert made.sample().tolist() == [0, 1, 0] and made.drawn()[0] == made.chosen() == 1


@pytest.mark.parametrize("mode", ["hard", "hard+gumbel"])
def test_hard_weights_have_a_slope(mode: str) -> None:
    made = knob(0.3, 0.5, 0.0, mode=mode)
    assert all(slope(made.sample()[0], made.logits))


@pytest.mark.parametrize("mode", ["soft", "gumbel", "hard+gumbel"])
def test_alternatives_are_drawn_by_their_probabilities(mode: str) -> None:
    made = knob(0.0, 1.0, 2.0, mode=mode, temperature=2.0)
    counts = torch.bincount(torch.tensor([made.drawn()[0] for _ in range(2000)]))
    assert torch.allclose(counts / 2000, made.probabilities(), atol=0.04)


@pytest.mark.parametrize("mode", MODES)
def test_the_weight_of_a_drawn_alternative_is_one_with_a_slope(mode: str) -> None:
    made = knob(0.0, 1.0, 2.0, mode=mode)
    weight = made.drawn()[1]
    assert weight == 1 and all(slope(weight, made.logits))


def test_held_draws_are_equal() -> None:
    made = knob(0.0, 0.0, 0.0, mode="gumbel")
    made.hold()
    first, second = made.sample(), made.sample()
    made.release()
    assert torch.equal(first, second) and not torch.equal(first, made.sample())


def test_a_nan_logit_is_refused() -> None:
    with pytest.raises(SearchError, match="NaN"):
        knob(0.0, torch.nan).chosen()


def test_a_choice_keeps_no_sampling_in_its_state() -> None:
    assert list(ChoiceKnob(2).state_dict()) == ["logits"]


def test_copies_of_choices_share_a_copy_of_the_sampling() -> None:
    sampling = Sampling()
    pair = nn.ModuleList([ChoiceKnob(2, sampling), ChoiceKnob(3, sampling)])
    one, two = copy.deepcopy(pair)
    assert one.sampling is two.sampling is not sampling


# Sampling


@pytest.mark.parametrize("shape", ["linear", "exponential", "cosine"])
def test_schedules_go_from_start_to_end(shape: str) -> None:
    schedule = Schedule(5.0, 0.5, 10, shape)
    values = [schedule.at(step) for step in range(13)]
    assert values[0] == 5 and values[10:] == [0.5] * 3
    assert all(a > b for a, b in pairwise(values[:11]))


@pytest.mark.parametrize(
    ("shape", "middle"), [("linear", 2.5), ("exponential", 2), ("cosine", 2.5)]
)
def test_half_way_of_a_schedule(shape: str, middle: float) -> None:
    assert Schedule(4.0, 1.0, 2, shape).at(1) == pytest.approx(middle)


def test_a_constant_schedule_stays_at_its_start() -> None:
    assert [Schedule(2.0, 1.0, 3, "constant").at(step) for step in (0, 3, 9)] == [2, 2, 2]


def test_steps_follow_the_schedule() -> None:
    sampling = Sampling(schedule=Schedule(3.0, 1.0, 2, "linear"))
    seen = [sampling.temperature]
    for _ in range(3):
        sampling.step()
        seen.append(sampling.temperature)
    assert seen == [3, 2, 1, 1]


def used() -> Sampling:
    sampling = Sampling(seed=3, mode="gumbel", schedule=Schedule(5.0, 1.0, 9))
    for _ in range(4):
        sampling.step()
        sampling.noise(5)
    return sampling


def future(sampling: Sampling) -> tuple[str, list[float], list[list[float]]]:
    temperatures, draws = [], []
    for _ in range(3):
        sampling.step()
        temperatures.append(sampling.temperature)
        draws.append(sampling.noise(3).tolist())
    return sampling.mode, temperatures, draws


def test_a_state_dict_resumes_bit_by_bit() -> None:
    first, second = used(), Sampling()
    second.load_state_dict(first.state_dict())
    assert future(first) == future(second)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_go_on_alike(again: object) -> None:
    first = used()
    assert future(again(first)) == future(first)  # type: ignore[operator]


def test_copies_draw_for_themselves() -> None:
    first, second = used(), used()
    copy.deepcopy(first).noise(9)
    assert torch.equal(first.noise(4), second.noise(4))


def test_equal_seeds_draw_alike() -> None:
    assert torch.equal(Sampling(7).noise(4), Sampling(7).noise(4))


def test_a_state_is_loaded_without_code(tmp_path) -> None:  # type: ignore[no-untyped-def]
    first, second = used(), Sampling()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert future(first) == future(second)


@pytest.mark.parametrize("temperature", [0, -1.0, torch.inf, torch.nan])
def test_a_temperature_is_positive(temperature: float) -> None:
    with pytest.raises(SearchError, match="temperature is"):
        Sampling().temperature = temperature


def test_unknown_modes_are_refused() -> None:
    with pytest.raises(SearchError, match="'gumble'; did you mean 'gumbel'"):
        Sampling(mode="gumble")


def test_unknown_shapes_are_refused() -> None:
    with pytest.raises(SearchError, match="shape of a schedule 'step'"):
        Schedule(1.0, 0.5, 3, "step")


def test_schedules_have_steps() -> None:
    with pytest.raises(SearchError, match="steps of a schedule are 0"):
        Schedule(1.0, 0.5, 0)


# All of them


def knobs() -> list[nn.Module]:
    masks, taps = MaskBank(), KernelBank()
    masks.add("a.b", 3, 2)
    taps.add("a.b", 5, dilation=True)
    return [Mask(3), masks, OrderedMask(3), DilationMask(5), taps, ChoiceKnob(3)]


def read(module: nn.Module) -> Tensor:
    return module.probabilities() if isinstance(module, ChoiceKnob) else module.soft()  # type: ignore[operator]


@pytest.mark.parametrize("number", range(6))
def test_every_knob_survives_pickle_and_copy(number: int) -> None:
    module = knobs()[number]
    for parameter in module.parameters():
        parameter.data.uniform_(0, 1)
    value = read(module)
    for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(read(again), value)


@pytest.mark.parametrize("number", range(6))
def test_every_knob_is_whole_in_its_state_dict(number: int) -> None:
    module, other = knobs()[number], knobs()[number]
    for parameter in module.parameters():
        parameter.data.uniform_(0, 1)
    other.load_state_dict(module.state_dict())
    assert torch.equal(read(other), read(module))


@pytest.mark.parametrize("number", range(6))
def test_every_knob_trains_in_double(number: int) -> None:
    module = knobs()[number].double()
    scale = torch.arange(1.0, 1.0 + len(read(module)))
    (read(module) * scale).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


@pytest.mark.parametrize("number", range(5))
def test_every_mask_has_the_slope_of_its_soft_values(number: int) -> None:
    module = knobs()[number].double()
    for parameter in module.parameters():
        parameter.data.uniform_(0.05, 0.2)
    scale = torch.arange(1.0, 1.0 + len(read(module)))
    for parameter in module.parameters():
        for entry, found in enumerate(slope(read(module).mul(scale).sum(), parameter)):
            ends = []
            for step in (1e-4, -2e-4):
                parameter.data[entry] += step
                ends.append(float(read(module).mul(scale).sum().detach()))
            parameter.data[entry] += 1e-4
            assert found == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-6)
