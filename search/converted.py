"""Other forms of an exported network."""

from pathlib import Path
from typing import Any

from torch import nn

from hwcost.errors import SearchError, did_you_mean

#: What ``export`` makes.
FORMS = ("torch", "integer", "onnx")


def converted(
    model: nn.Module, form: str, path: str | Path | None, args: Any, kwargs: Any
) -> nn.Module:
    """Return a network in another form; see ``Search.export``.

    Raises:
        SearchError: the form is unknown, or has no path where it is a file.
    """
    if form not in FORMS:
        known = ", ".join(map(repr, FORMS))
        raise SearchError(f"no form {form!r} of export{did_you_mean(form, FORMS)}; known: {known}")
    if form == "integer":
        from hwcost.search.integer import to_integer

        return to_integer(model.eval(), args, kwargs)
    if path is None:
        raise SearchError("export('onnx', path) needs a path")
    from hwcost.search.onnx_export import to_onnx

    to_onnx(model.eval(), args, path, kwargs)
    return model
