"""Search methods over a network's channels, branches, bits and engines.

Imported as ``hwcost.search`` only: under a second name every class in here would exist twice,
and ``isinstance`` would tell the two apart.
"""

if __name__ != "hwcost.search":
    raise ImportError("this package is named 'hwcost.search'; write `import hwcost.search`")

__all__: list[str] = []
