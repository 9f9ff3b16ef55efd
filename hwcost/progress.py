"""What long work tells whoever waits for it."""

from collections.abc import Callable

#: Called with what is done next, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]
