"""The choice of one among several alternatives, by trainable probabilities."""

from typing import Any

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search.gates_sampling import Sampling
from hwcost.search.gates_straight import straight_through, unit_weight


class Sampled(nn.Module):
    """What draws by logits: its randomness is shared, and can be held for a step.

    Args:
        sampling: mode, temperature and randomness; its owner keeps it in a state_dict.

    Attributes:
        logits: of the alternatives.
    """

    logits: nn.Parameter
    sampling: Sampling

    def __init__(self, sampling: Sampling | None = None) -> None:
        super().__init__()
        self.sampling = Sampling() if sampling is None else sampling
        self._held = False
        self._noise: Tensor | None = None

    def hold(self) -> None:
        """Draw only once from now on, until ``release``."""
        self._held, self._noise = True, None

    def release(self) -> None:
        """Draw anew each time again."""
        self._held, self._noise = False, None

    def _noise_now(self) -> Tensor:
        noise = self._noise
        if noise is None:
            noise = self.sampling.noise(self.logits.numel()).view(self.logits.shape)
            noise = noise.to(self.logits.device)
            self._noise = noise if self._held else None
        return noise

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "sampling":
            # Not a submodule: the state_dict would hold it once for each choice.
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)


class ChoiceKnob(Sampled):
    """Logits of ``size`` alternatives; all equal at the start.

    Args:
        size: how many alternatives.
        sampling: mode, temperature and randomness, shared; its owner keeps it in a state_dict.

    Source:
        Jang et al., Gumbel-Softmax, arXiv:1611.01144; with one path, Dong and Yang, GDAS,
        arXiv:1910.04465.
    """

    def __init__(self, size: int, sampling: Sampling | None = None) -> None:
        super().__init__(sampling)
        if type(size) is not int or size < 1:
            raise SearchError(f"a choice of {size!r} alternatives; expected 1 or more")
        self.size = size
        self.logits = nn.Parameter(torch.zeros(size))

    def probabilities(self) -> Tensor:
        """Return how probable each alternative is, float32, shape ``(size,)``.

        In the modes with Gumbel noise this is how often each is drawn, which the temperature
        does not change: it only makes each draw more or less decided.
        """
        return self._share(self.logits.float(), 1 if self.sampling.noisy else None)

    def sample(self) -> Tensor:
        """Return weights of the alternatives, their sum is 1, float32, shape ``(size,)``."""
        shares = self._drawn_shares()
        if not self.sampling.mode.startswith("hard"):
            return shares
        top = shares.detach().argmax(0, keepdim=True)
        return straight_through(torch.zeros_like(shares).index_fill(0, top, 1.0), shares)

    def drawn(self) -> tuple[int, Tensor]:
        """Return one alternative and its weight, a scalar of value 1 with a gradient.

        Mode ``"hard"`` takes the most probable one, the others draw by the probabilities.
        """
        if self.sampling.mode == "soft":
            shares = self.probabilities()
            number = int((shares.detach().log() + self._noise_now()).argmax())
            return number, unit_weight(shares[number])
        shares = self._drawn_shares()
        number = int(shares.detach().argmax())
        return number, straight_through(shares.new_ones(()), shares[number])

    def chosen(self) -> int:
        """Return the most probable alternative, the first of several such.

        Raises:
            SearchError: a logit is NaN.
        """
        logits = self.logits.detach()
        if bool(logits.isnan().any()):
            raise SearchError("a logit of a choice is NaN; the loss of an earlier step was so too")
        return int(logits.argmax())

    def extra_repr(self) -> str:
        """Return the size, for ``repr``."""
        return str(self.size)

    def _drawn_shares(self) -> Tensor:
        if not self.sampling.noisy:
            return self._share(self.logits.float())
        return self._share(self.logits.float() + self._noise_now())

    def _share(self, scores: Tensor, temperature: float | None = None) -> Tensor:
        # Without the largest, a quotient by a small temperature cannot overflow upwards.
        scores = scores - scores.detach().amax()
        return (scores / (temperature or self.sampling.temperature)).softmax(0)
