"""Search methods by name, those of other packages included."""

from importlib.metadata import entry_points

from hwcost.errors import SearchError, UnknownName, suggestion
from hwcost.search.method import Method
from hwcost.search.mps import MPSMethod
from hwcost.search.nm import NMMethod
from hwcost.search.odimo_method import ODiMOMethod
from hwcost.search.pit import PITMethod
from hwcost.search.supernet import SuperNetMethod

#: Name -> method. A package adds its own through the entry-point group ``hwcost.search``.
METHODS: dict[str, type[Method]] = {
    cls.title: cls for cls in (MPSMethod, NMMethod, ODiMOMethod, PITMethod, SuperNetMethod)
}

GROUP = "hwcost.search"


def method_named(name: str) -> type[Method]:
    """Return the class of a method, to be made with its options and given to ``Search``.

    Raises:
        UnknownName: neither hwcost nor an installed package has it.
        SearchError: what an installed package calls so is no method.
    """
    if name in METHODS:
        return METHODS[name]
    installed = {point.name: point for point in entry_points(group=GROUP)}
    if name not in installed:
        known = [*METHODS, *installed]
        raise UnknownName(f"no search method {name!r}{suggestion(name, known)}")
    found = installed[name].load()
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise SearchError(f"{installed[name].value!r} is no search method")
    return found
