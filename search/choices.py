"""Many choices among the same options, decided together in a few operations."""

from typing import Any

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search.gates_sampling import Sampling
from hwcost.search.gates_straight import straight_through


class ChoiceBank(nn.Module):
    """Logits of choices, each among those options that it allows.

    Args:
        start: logits at the start, one for each option.
        allowed: which options each choice has, bool, shape ``(choices, options)``.

    Attributes:
        logits: shape ``(choices, options)``; those of options that are not allowed say nothing.
    """

    allowed: Tensor
    sampling: Sampling

    def __init__(self, start: Tensor, allowed: Tensor) -> None:
        super().__init__()
        if not bool(allowed.any(1).all()):
            raise SearchError("a choice allows no option")
        self.logits = nn.Parameter(start.float().expand(allowed.shape).clone())
        self.register_buffer("allowed", allowed, persistent=False)
        self.sampling = Sampling()
        self._held = False
        self._noise: Tensor | None = None

    def __len__(self) -> int:
        return len(self.logits)

    def probabilities(self) -> Tensor:
        """Return how probable each option is, float32, shape ``(choices, options)``.

        In the modes with Gumbel noise, how often each is drawn.
        """
        return self._share(self.logits.float(), 1 if self.sampling.noisy else None)

    def sample(self) -> Tensor:
        """Return the options' weights in training, shape ``(choices, options)``; rows sum to 1."""
        scores = self.logits.float()
        shares = self._share(scores + self._noise_now() if self.sampling.noisy else scores)
        if not self.sampling.mode.startswith("hard"):
            return shares
        top = shares.detach().argmax(1, keepdim=True)
        return straight_through(torch.zeros_like(shares).scatter_(1, top, 1.0), shares)

    def chosen(self) -> Tensor:
        """Return the most probable option of each choice, int64, shape ``(choices,)``."""
        return self.logits.detach().masked_fill(~self.allowed, -torch.inf).argmax(1)

    def hold(self) -> None:
        """Draw only once from now on, until ``release``."""
        self._held, self._noise = True, None

    def release(self) -> None:
        """Draw anew each time again."""
        self._held, self._noise = False, None

    def _share(self, scores: Tensor, temperature: float | None = None) -> Tensor:
        scores = scores.masked_fill(~self.allowed, -torch.inf)
        # Without the largest, a quotient by a small temperature cannot overflow upwards.
        scores = scores - scores.detach().amax(1, keepdim=True)
        return (scores / (temperature or self.sampling.temperature)).softmax(1)

    def _noise_now(self) -> Tensor:
        noise = self._noise
        if noise is None:
            noise = self.sampling.noise(self.logits.numel()).to(self.logits.device)
            noise = noise.view(self.logits.shape)
            self._noise = noise if self._held else None
        return noise

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "sampling":
            # Not a submodule: the state_dict would hold it once for each bank.
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)


def without(shares: Tensor, option: int) -> Tensor:
    """Return the shares of the other options, whose sum is 1 again.

    Args:
        shares: shape ``(choices, options)``.
        option: the one left out.
    """
    kept = torch.cat([shares[:, :option], shares[:, option + 1 :]], 1)
    # A choice that takes the option for certain has no other: then they have equal parts.
    tiny = torch.finfo(kept.dtype).tiny
    return (kept + tiny) / (kept + tiny).sum(1, keepdim=True)
