"""The shipped platforms, one YAML file each; imported as ``hwcost.platforms``.

A package and not a mere folder, because an editable install finds no folder without this file
where the link hwcost/platforms does not exist.
"""
