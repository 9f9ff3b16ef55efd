"""Masks: which members of a group stay, by the absolute value of one parameter each."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search.gates_straight import straight_through


@dataclass(frozen=True, eq=False)
class Layout:
    """Masks laid one after another in a vector of ``total`` entries.

    Attributes:
        places: entry of each mask's members, int64, shape ``(masks, widest)``; rows of narrower
            masks end with repetitions of their first.
        starts: first entry of each mask, shape ``(masks,)``.
        sizes: members of each mask, shape ``(masks, 1)``.
        multiples: how many members stay together, shape ``(masks, 1)``; None where always one.
        back: place in the flattened ``places`` of each entry, shape ``(total,)``.
        extra: sets of entries of which one must stay, padded likewise, shape ``(sets, widest)``;
            None where there are none.
    """

    places: Tensor
    starts: Tensor
    sizes: Tensor
    multiples: Tensor | None
    back: Tensor
    extra: Tensor | None

    @classmethod
    def make(
        cls,
        sizes: Sequence[int],
        multiples: Sequence[int],
        device: torch.device,
        sets: Sequence[Tensor] = (),
    ) -> "Layout":
        """Return the layout of masks of these sizes, one of each of ``sets`` of entries kept."""
        size = torch.tensor(sizes)[:, None]
        starts = size.cumsum(0) - size
        columns = torch.arange(int(size.max()))
        inside = columns < size
        found = {
            "places": starts + columns * inside,
            "starts": starts[:, 0],
            "sizes": size,
            "back": inside.flatten().nonzero()[:, 0],
        }
        blocks = torch.tensor(multiples)[:, None].to(device) if max(multiples) > 1 else None
        extra = None
        if sets:
            widest = max(map(len, sets))
            rows = [torch.cat([s, s[:1].expand(widest - len(s))]) for s in sets]
            extra = torch.stack(rows).to(device)
        return cls(**{k: v.to(device) for k, v in found.items()}, multiples=blocks, extra=extra)

    def survivors(self, salience: Tensor, threshold: float) -> Tensor:
        """Return which entries stay, bool, shape ``(total,)``.

        Those at or above the threshold, and of each mask at least the most salient one, the
        first of several such. Where members stay in multiples, their number is rounded up.
        """
        salience = salience.detach()
        alive = salience >= threshold
        if self.multiples is not None:
            alive = self._blocks(salience, alive, self.multiples)
        else:
            best = salience[self.places].argmax(1) + self.starts
            alive.index_fill_(0, best, True)
        if self.extra is not None:
            best = salience[self.extra].argmax(1, keepdim=True)
            alive.index_fill_(0, self.extra.gather(1, best).flatten(), True)
        return alive

    def _blocks(self, salience: Tensor, alive: Tensor, multiples: Tensor) -> Tensor:
        columns = torch.arange(self.places.shape[1], device=salience.device)
        inside = columns < self.sizes
        count = (alive[self.places] & inside).sum(1, keepdim=True).clamp_(min=1)
        blocks = count.add_(multiples - 1).div_(multiples, rounding_mode="floor")
        keep = columns < blocks.mul_(multiples).minimum(self.sizes)
        ranked = salience[self.places].masked_fill_(~inside, -1.0)
        order = ranked.argsort(dim=1, descending=True, stable=True)
        return keep.scatter(1, order, keep).flatten()[self.back]


class Mask(nn.Module):
    """Which of ``size`` members stay: those with ``|alpha|`` at or above the threshold.

    All stay at the start. At least one always does: the most salient, that with the largest
    ``|alpha|``, the first of several such.

    Args:
        multiple: survivors come in multiples of this, the most salient ones; all of them may
            stay even if the size is no multiple.
        name: for messages.

    Raises:
        SearchError: the size or the multiple is no whole number above 0.
    """

    def __init__(
        self, size: int, multiple: int = 1, threshold: float = 0.5, name: str = "mask"
    ) -> None:
        super().__init__()
        check_sizes(name, size=size, multiple=multiple)
        self.size, self.multiple, self.threshold, self.name = size, multiple, threshold, name
        self.alpha = nn.Parameter(torch.ones(size))

    def soft(self) -> Tensor:
        """Return the share of each member in [0, 1], ``min(|alpha|, 1)``, shape ``(size,)``."""
        return self.alpha.abs().clamp(max=1)

    def binary(self) -> Tensor:
        """Return 0 or 1 with the gradient of ``|alpha|``, shape ``(size,)``."""
        salience = self.alpha.abs()
        return straight_through(self._survivors(salience), salience)

    def hard(self) -> Tensor:
        """Return which members stay, bool, shape ``(size,)``.

        Raises:
            SearchError: an alpha is NaN.
        """
        refuse_nan(self.name, self.alpha)
        return self._survivors(self.alpha.abs())

    def project(self) -> None:
        """Put every alpha back into [-1, 1]; beyond, ``soft`` has no gradient."""
        # Through .data: a graph that an earlier forward recorded stays valid.
        self.alpha.data.clamp_(-1, 1)

    def extra_repr(self) -> str:
        """Return size and multiple, for ``repr``."""
        return str(self.size) + (f", multiple={self.multiple}" if self.multiple > 1 else "")

    def _survivors(self, salience: Tensor) -> Tensor:
        layout = Layout.make([self.size], [self.multiple], salience.device)
        return layout.survivors(salience, self.threshold)


class MaskBank(nn.Module):
    """Masks by name in one vector, read in a few operations however many there are.

    One parameter ``alpha`` of shape ``(total,)`` for all: with one for each mask, an optimizer's
    step and the backward pass take several times as long.

    Args:
        threshold: that of all masks.

    Attributes:
        places: name -> the entries of a mask, in the order in which masks were added.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        self.threshold = threshold
        self.places: dict[str, slice] = {}
        self.alpha = nn.Parameter(torch.ones(0), requires_grad=False)
        self._multiples: list[int] = []
        self._sets: list[Tensor] = []
        self._layouts: dict[torch.device, Layout] = {}

    @property
    def total(self) -> int:
        """How many members all masks have."""
        return len(self.alpha)

    def add(self, name: str, size: int, multiple: int = 1) -> slice:
        """Add a mask, as ``Mask``, and return its place; before an optimizer has ``alpha``.

        Raises:
            SearchError: the name is taken, or as for ``Mask``.
        """
        check_sizes(name, size=size, multiple=multiple)
        if name in self.places:
            raise SearchError(f"there is a mask {name!r} already")
        self.places[name] = slice(self.total, self.total + size)
        self._multiples.append(multiple)
        self._layouts.clear()
        self.alpha = grown(self.alpha, size)
        return self.places[name]

    def keep_one_of(self, entries: Tensor) -> None:
        """Let the most salient of these entries always stay; int64, shape ``(members,)``."""
        self._sets.append(entries)
        self._layouts.clear()

    def soft(self) -> Tensor:
        """Return the share of each member in [0, 1], shape ``(total,)``."""
        return self.alpha.abs().clamp(max=1)

    def binary(self) -> Tensor:
        """Return 0 or 1, with the gradient of ``|alpha|``, shape ``(total,)``."""
        salience = self.alpha.abs()
        return straight_through(self._survivors(salience), salience)

    def hard(self) -> Tensor:
        """Return which members stay, bool, shape ``(total,)``.

        Raises:
            SearchError: an alpha is NaN.
        """
        if bool(self.alpha.isnan().any()):
            for name in self.places:
                refuse_nan(name, self[name])
        return self._survivors(self.alpha.abs())

    def project(self) -> None:
        """Put every alpha back into [-1, 1]."""
        self.alpha.data.clamp_(-1, 1)

    def __getitem__(self, name: str) -> Tensor:
        """Return the alphas of one mask, a view."""
        return self.alpha[self.places[name]]

    def extra_repr(self) -> str:
        """Return how many there are, for ``repr``."""
        return f"{len(self.places)} masks, {self.total} members"

    def _survivors(self, salience: Tensor) -> Tensor:
        if not self.places:
            return torch.zeros(0, dtype=torch.bool, device=salience.device)
        layout = self._layouts.get(salience.device)
        if layout is None:
            sizes = [place.stop - place.start for place in self.places.values()]
            layout = Layout.make(sizes, self._multiples, salience.device, self._sets)
            self._layouts[salience.device] = layout
        return layout.survivors(salience, self.threshold)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_layouts": {}}


def grown(parameter: nn.Parameter, size: int) -> nn.Parameter:
    """Return a parameter with so many ones behind its values.

    An empty one asks for no gradient: it never gets one, and would be waited for in vain where
    gradients are gathered from several processes.
    """
    data = parameter.detach()
    longer = torch.cat([data, data.new_ones(size)])
    trained = parameter.requires_grad or not len(data)
    return nn.Parameter(longer, requires_grad=trained and len(longer) > 0)


def check_sizes(name: str, **sizes: int) -> None:
    """Refuse sizes that are no whole numbers above 0.

    Raises:
        SearchError: it names the mask.
    """
    for what, value in sizes.items():
        if type(value) is not int or value < 1:
            raise SearchError(f"{what} of mask {name!r} is {value!r}; expected 1 or more")


def refuse_nan(name: str, parameter: Tensor) -> None:
    """Refuse to decide on NaN.

    Raises:
        SearchError: it names the mask.
    """
    if bool(parameter.isnan().any()):
        raise SearchError(f"mask {name!r} is NaN; the loss of an earlier step was so too")
