"""How large a formula may become, and which of its cases are small."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hwcost.quotient import Graph, too_large

#: Steps and cases of one formula; one of this size was not written by a person.
MOST_STEPS = 20_000
MOST_CASES = 2_000

#: Steps that the cases of a ``select`` may add to rows that do not take them.
MOST_ADDED = 24


@dataclass
class Budget:
    """How large a formula has become; parts that several cases need count several times."""

    steps: int = 0
    cases: int = 0

    def check(self) -> None:
        """Check that the formula is not too large.

        Raises:
            FormulaError: it is.
        """
        if self.steps > MOST_STEPS:
            raise too_large("steps", MOST_STEPS)
        if self.cases > MOST_CASES:
            raise too_large("cases", MOST_CASES)


def adds_little(graph: Graph, cases: Iterable[int], at_hand: Callable[[int], bool]) -> bool:
    """Whether it is faster to compute cases on all rows than to move each row to its case.

    Never for a case that may raise, which only the rows that take it may do.
    """
    pending = list(cases)
    if any(graph.raising[case] for case in pending):
        return False
    added: set[int] = set()
    while pending and len(added) <= MOST_ADDED:
        number = pending.pop()
        if number not in added and not at_hand(number):
            added.add(number)
            pending.extend(graph.nodes[number].args)
    return len(added) <= MOST_ADDED
