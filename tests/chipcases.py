"""A chip with a source, to which tests add what they need, and changes to its text."""

HEAD = """\
hwcost: 1
name: chip
title: a chip
status: measured
sources: {bench: "a bench, 2024"}
"""


def changed(text: str, *changes: tuple[str, str]) -> str:
    """Return the text with each old part, which must be there, replaced by a new one."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text
