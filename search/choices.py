"""Many choices among the same options, decided together in a few operations."""

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search.gates_choice import Sampled
from hwcost.search.gates_straight import straight_through


class ChoiceBank(Sampled):
    """Logits of choices, each among those options that it allows.

    Args:
        start: logits at the start, one for each option.
        allowed: which options each choice has, bool, shape ``(choices, options)``.

    Attributes:
        logits: shape ``(choices, options)``; those of options that are not allowed say nothing.
    """

    allowed: Tensor

    def __init__(self, start: Tensor, allowed: Tensor) -> None:
        super().__init__()
        if not bool(allowed.any(1).all()):
            raise SearchError("a choice allows no option")
        self.logits = nn.Parameter(start.float().expand(allowed.shape).clone())
        self.register_buffer("allowed", allowed, persistent=False)

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

    def _share(self, scores: Tensor, temperature: float | None = None) -> Tensor:
        scores = scores.masked_fill(~self.allowed, -torch.inf)
        # Without the largest, a quotient by a small temperature cannot overflow upwards.
        scores = scores - scores.detach().amax(1, keepdim=True)
        return (scores / (temperature or self.sampling.temperature)).softmax(1)


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
