"""Files that say which layers are pruned."""

from pathlib import Path

import pytest
import torch
from torch import nn

from hwcost.errors import SearchError
from hwcost.search import PruneFiller, WeightPruning, prune_from_ini
from hwcost.search.weight_pruning_groups import find_pruned


def net() -> nn.ModuleDict:
    torch.manual_seed(0)
    layers = {"conv1": nn.Conv2d(3, 4, 3), "bn1": nn.BatchNorm2d(4), "fc1": nn.Linear(40, 10)}
    return nn.ModuleDict(layers)


def pruned(tmp_path: Path, text: str, model: nn.Module | None = None) -> WeightPruning:
    path = tmp_path / "prune.ini"
    path.write_text(text)
    return prune_from_ini(model or net(), path)


#: As the original's documentation and its LeNet.ini have it.
WHOLE = """\
; a network
$SHARE=0.5
DefaultModel=Frame_CUDA

[database]
Type=MNIST_IDX_Database
Validation=0.2 ; a share

[sp]
SizeX=32
BatchSize=128

[sp.Transformation_1]
Type=RescaleTransformation
Width=[sp]SizeX

[conv1]
Input=sp
Type=Conv
KernelDims=3 3
NbOutputs=4
Mapping(sp)=\\
1 0 0 \\
0 1 1
ActivationFunction=Rectifier
WeightsFiller=HeFiller
WeightsFiller.Scaling=1.0
ConfigSection=common.config
QWeight=Prune
QWeight.PruningMode=Static
QWeight.PruningFiller=IterNonStruct
QWeight.Threshold=0.3  # more than by default
QWeight.StartThreshold=0.1
QWeight.GammaThreshold=0.1

[pool1]
Input=conv1
Type=Pool
PoolDims=2 2
Stride=2

[fc1] Fc_def
Input=pool1
NbOutputs=10

[softmax.Target]

[Fc_def]
Type=Fc
QWeight=Prune
QWeight.PruningMode=Gradual
QWeight.Threshold=${SHARE}
QWeight.StepSizeThreshold=2000
QWeight.Delta="0.01"

[common.config]
NoBias=1
WeightsSolver.LearningRate=0.05
Solvers.Clamping=1
QWeight.Delta=0.002
"""


def test_a_whole_file_of_the_original_is_read(tmp_path: Path) -> None:
    model = net()
    pruned(tmp_path, WHOLE, model)
    conv, fc = (one.cell for _, one in find_pruned(model))
    assert (conv.threshold, conv.delta, conv.prune_filler) == (
        0.3,
        0.002,
        PruneFiller.ITERNONSTRUCT,
    )
    assert (fc.prune_mode, fc.threshold, fc.delta, fc.stepsize) == ("Gradual", 0.5, 0.01, 2000)
    assert fc.unit == "samples"


def test_layers_that_no_section_names_stay(tmp_path: Path) -> None:
    text = "[fc1]\nQWeight=Prune\nQWeight.PruningMode=static\n"
    assert pruned(tmp_path, text).sparsity() == {"fc1": 0.2}


def test_a_layer_inside_another_module_is_named_by_its_path(tmp_path: Path) -> None:
    model = nn.ModuleDict({"body": net()})
    text = "[body.fc1]\nQWeight=Prune\nQWeight.PruningMode=Static\n"
    assert list(pruned(tmp_path, text, model).sparsity()) == ["body.fc1"]


@pytest.mark.parametrize("key", ["", "QWeight.PruningFiller=None\nQWeight.PruningMode=Static\n"])
def test_nothing_is_pruned_by_default_or_without_a_filler(tmp_path: Path, key: str) -> None:
    assert pruned(tmp_path, f"[fc1]\nQWeight=Prune\n{key}").sparsity() == {}


def test_own_keys_go_before_those_brought_in_and_later_sections_before_earlier(
    tmp_path: Path,
) -> None:
    text = (
        "[fc1]\nConfigSection=a, b\nQWeight.Threshold=0.3\n[a]\nQWeight=Prune\n"
        "QWeight.PruningMode=Gradual\nQWeight.Threshold=0.9\n[b]\nQWeight.PruningMode=Static\n"
    )
    assert pruned(tmp_path, text).sparsity() == {"fc1": 0.3}


def test_a_value_may_refer_to_another_section(tmp_path: Path) -> None:
    text = "[fc1]\nQWeight=Prune\nQWeight.PruningMode=Static\nQWeight.Threshold=[sp]Share\n"
    assert pruned(tmp_path, f"{text}[sp]\nShare=0.4\n").sparsity() == {"fc1": 0.4}


HEAD = "[fc1]\nQWeight=Prune\nQWeight.PruningMode=Static\n"

WRONG = {
    "unknown layer": ("[fc2]\nQWeight=Prune\n", r":1: unknown layer 'fc2'; did you mean 'fc1'\?"),
    "empty section": ("[con1]\n", r":1: unknown layer 'con1'; did you mean 'conv1'\?"),
    "typed layer": ("[conv2]\nType=Conv\nQWeight=Prune\n", ":1: unknown layer 'conv2'; did you"),
    "asked by another section": (
        f"[fc9]\nConfigSection=all\n[all]\n{HEAD[6:]}",
        r":1: unknown layer 'fc9'; did you mean 'fc1'\?",
    ),
    "no weight": ("[bn1]\nQWeight=Prune\n", ":1: layer 'bn1' is BatchNorm2d, which has no weight"),
    "unknown key": (
        f"{HEAD}QWeight.Treshold=0.3\n",
        r":4: unknown key 'QWeight.Treshold'; did you mean 'QWeight.Threshold'\?",
    ),
    "other unknown key": (f"{HEAD}NbOutput=3\n", r":4: unknown key 'NbOutput'; did you mean 'NbOu"),
    "far key": (f"{HEAD}zzz=3\n", ":4: unknown key 'zzz'; keys of pruning: QWeight, QWeight.Pru"),
    "key by a section": (
        f"{HEAD}ConfigSection=more\n[more]\nQWeigth.Delta=1\n",
        r":6: unknown key 'QWeigth.Delta'; did you mean 'QWeight.Delta'\?",
    ),
    "mode": (
        "[fc1]\nQWeight=Prune\nQWeight.PruningMode=Statc\n",
        r":3: QWeight.PruningMode: prune_mode is 'Statc'; did you mean 'Static'\?",
    ),
    "number": (f"{HEAD}QWeight.Threshold=0,3\n", ":4: QWeight.Threshold is '0,3'; expected a numb"),
    "whole": (
        f"{HEAD}QWeight.StepSizeThreshold=1.5\n",
        ":4: QWeight.StepSizeThreshold is '1.5'; e",
    ),
    "value": (
        f"{HEAD}QWeight.Delta=0\n",
        ":4: QWeight.Delta: delta is 0.0; expected a number above 0",
    ),
    "default value": (
        "[fc1]\nQWeight=Prune\nQWeight.PruningMode=Gradual\nQWeight.Threshold=0.05\n",
        ":1: fc1: start is 0.1; expected 0 to the threshold, 0.05",
    ),
    "another method": ("[fc1]\nQWeight=SAT\n", ":2: QWeight is 'SAT'; expected 'Prune'"),
    "not turned on": ("[fc1]\nQWeight.Threshold=0.3\n", ":2: QWeight.Threshold without QWeight=P"),
    "section twice": (f"{HEAD}[fc1]\n", r":4: section \[fc1\] was given in line 1 already"),
    "key twice": (f"{HEAD}QWeight=Prune\n", ":4: QWeight was given in line 2 already"),
    "no such section": (
        f"{HEAD}ConfigSection=comon\n[common]\n",
        r":4: no section \[comon\]; did you mean 'common'\?",
    ),
    "circle": (
        f"{HEAD}ConfigSection=a\n[a]\nConfigSection=b\n[b]\nConfigSection=a\n",
        ":5: sections bring in each other: fc1 -> a -> b -> a",
    ),
    "itself": (
        f"{HEAD}QWeight.Threshold=[fc1]QWeight.Threshold\n",
        ":4: QWeight.Threshold is defined by itself",
    ),
    "macro": (f"$SHARE=1\n{HEAD}QWeight.Delta=${{SHAR}}\n", r":5: unknown macro 'SHAR'; did you"),
    "no such reference": (
        f"{HEAD}QWeight.Delta=[sp]Dlta\n[sp]\nDelta=1\n",
        r":4: \[sp\] has no key 'Dlta'; did you mean 'Delta'\?",
    ),
    "expression": (f"{HEAD}QWeight.Delta=$(1/3)\n", r":4: .*expressions are not evaluated"),
    "template": ("[fc1@x.ini.tpl]\n", r":1: \[fc1@x.ini.tpl\] includes a template"),
    "template variable": ("[{{NAME}}]\n", ":1: templates are not read; expand them first"),
    "no line": ("[fc1]\nQWeight\n", r":2: 'QWeight' is neither \[section\] nor key=value"),
    "no name": ("[]\n", r":1: '\[\]' is no section; expected \[name\]"),
    "open section": ("[fc1\n", r":1: '\[fc1' is no section; expected \[name\]"),
    "open quote": ('[fc1]\nQWeight="Prune\n', ":2: a quote is not closed"),
    "nothing": ("[fc1]\nType=Fc\n", ": no section of a layer has QWeight=Prune"),
    "joined lines": ("[fc1]\nMapping=1 \\\n 0\nQWeigh=Prune\n", ":4: unknown key 'QWeigh'; did"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_an_error_at_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SearchError, match=rf"prune\.ini{message}"):
        pruned(tmp_path, text)


def test_a_file_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"no\.ini cannot be read: .*No such file"):
        prune_from_ini(net(), tmp_path / "no.ini")


def test_a_mistake_leaves_the_model_as_it_is(tmp_path: Path) -> None:
    model = net()
    with pytest.raises(SearchError):
        pruned(tmp_path, f"{HEAD}[conv1]\nQWeight=SAT\n", model)
    assert type(model["fc1"]) is nn.Linear
