"""Nets of the search suites that are written in all the ways in which people write forwards."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from tests.searchnets_base import IMAGE, Nets, add, conv_bn, example, pooled, registered

NETS: Nets = {}
net = registered(NETS)


class Two(nn.Module):
    """Two convolutions and a classifier; what is between them is the subclass's."""

    def __init__(self, hidden: int = 8, features: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden, features, 3, padding=1)
        self.bn, self.fc = nn.BatchNorm2d(features), nn.Linear(features, 5)

    def head(self, x: Tensor) -> Any:
        return self.fc(pooled(x))


@net(IMAGE)
class Functional(Two):
    def forward(self, x: Tensor) -> Any:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.adaptive_avg_pool2d(F.hardswish(self.bn(self.conv2(x))), 1)
        return self.fc(F.dropout(x.view(x.size(0), x.size(1)), 0.0, self.training))


@net(IMAGE)
class ConvTwice(Two):
    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.conv1(x))
        return self.head(self.bn(self.conv2(F.relu(self.conv2(x))) + x))


@net(IMAGE)
class Tied(Two):
    def __init__(self) -> None:
        super().__init__()
        self.conv3 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv3.weight = self.conv2.weight

    def forward(self, x: Tensor) -> Any:
        x = self.bn(F.relu(self.conv2(torch.sigmoid(self.conv1(x)))))
        return self.head(F.relu(self.conv3(x)))


@net((16,))
class TiedAutoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc1, self.enc2 = nn.Linear(16, 10), nn.Linear(10, 6)
        self.bias = nn.Parameter(torch.randn(10))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.enc2(torch.sigmoid(self.enc1(x))))
        x = torch.sigmoid(F.linear(x, self.enc2.weight.t(), self.bias))
        return F.linear(x, self.enc1.weight.t())


@net(IMAGE)
class Loop(Two):
    def forward(self, x: Tensor) -> Any:
        x = self.conv1(x)
        for step in range(3):
            x = x + torch.tanh(self.bn(self.conv2(F.relu(x)))) / (step + 1)
        return self.head(x)


@net(IMAGE)
class DataDependent(Two):
    def forward(self, x: Tensor) -> Any:
        y = F.relu(self.conv1(x))
        if bool(x.sum() > 1e6):
            return self.head(y)
        return self.head(F.relu(self.bn(self.conv2(y))))


@net(IMAGE)
class DictOutput(Two):
    def __init__(self) -> None:
        super().__init__()
        self.box = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Any]:
        x = F.relu(self.bn(self.conv2(F.relu(self.conv1(x)))))
        return {"class": self.head(x), "boxes": [self.box(x), self.box(F.max_pool2d(x, 2))]}


@net(IMAGE)
class TupleOutputs(Two):
    def forward(self, x: Tensor) -> tuple[Any, list[Tensor]]:
        early = F.relu(self.conv1(x))
        late = F.relu(self.bn(self.conv2(early)))
        return self.head(late), [early, late.mean((2, 3))]


class Result(NamedTuple):
    logits: Tensor
    loss: Tensor | None = None


@net(IMAGE)
class NamedResult(Two):
    def forward(self, x: Tensor) -> Result:
        return Result(logits=self.head(F.relu(self.bn(self.conv2(torch.sigmoid(self.conv1(x)))))))


@net(IMAGE, (6,))
class TwoInputs(Two):
    def __init__(self) -> None:
        super().__init__()
        self.side, self.both = nn.Linear(6, 7), nn.Linear(15, 5)

    def forward(self, image: Tensor, features: Tensor) -> Any:
        x = F.relu(self.bn(self.conv2(F.relu(self.conv1(image)))))
        return self.both(torch.cat((pooled(x), torch.sigmoid(self.side(features))), dim=-1))


@net(image=IMAGE, scale=(1, 1, 1))
class KeywordInputs(Two):
    def forward(self, *, scale: Tensor, image: Tensor) -> Any:
        x = F.relu(self.conv1(image)) * scale
        return self.head(F.relu(self.bn(self.conv2(x))))


@net(IMAGE)
class Split(Two):
    def __init__(self) -> None:
        super().__init__(hidden=12, features=12)
        self.mid = nn.Conv2d(12, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        a, b, c = torch.split(F.relu(self.conv1(x)), 4, dim=1)
        x = F.relu(self.conv2(torch.cat([a + b, b, c], 1)))
        low, high = x[:, :5], x[:, 5:]
        left, right = self.mid(torch.cat([high, low], 1)).chunk(2, dim=1)
        return self.head(self.bn(torch.cat([left * torch.sigmoid(right), right], 1)))


@net(IMAGE)
class OwnWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 3, 3, 3) / 5)
        self.bias = nn.Parameter(torch.randn(8))
        self.second, self.fc = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        x = torch.sigmoid(F.conv2d(x, self.weight, self.bias, padding=1))
        x = F.relu(F.conv2d(x, self.second.weight, self.second.bias, padding=1))
        return self.fc(pooled(x))


@net(IMAGE)
class WeightNorm(Two):
    def __init__(self) -> None:
        super().__init__()
        self.conv2 = parametrizations.weight_norm(self.conv2)
        self.conv3 = nn.Conv2d(8, 6, 3)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.bn(self.conv2(torch.sigmoid(self.conv1(x)))))
        return self.head(F.relu(self.conv3(x)))


class Features(nn.Sequential):
    """Its forward is its own."""

    def forward(self, x: Tensor) -> Any:
        for layer in self:
            x = layer(x) + 0.1
        return x


@net(IMAGE)
class Sequences(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = Features(conv_bn(3, 8), conv_bn(8, 8, groups=2), nn.Conv2d(8, 6, 1))
        self.heads = nn.ModuleDict({"a": nn.Linear(6, 4), "b": nn.Linear(6, 3)})
        self.scale = nn.ParameterList([torch.ones(6, 1, 1)])

    def forward(self, x: Tensor) -> Any:
        x = pooled(self.features(x) * self.scale[0])
        return [head(x) for head in self.heads.values()]


@net(IMAGE)
class InPlace(Two):
    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.conv1(x), inplace=True)
        y = self.conv2(x)
        y.add_(x).relu_()
        y = self.bn(y)
        y += 1
        y *= y.mean((2, 3), keepdim=True).sigmoid_()
        return self.head(y)


@net(IMAGE)
class ReadsLayers(Two):
    def forward(self, x: Tensor) -> Any:
        x = x.to(self.conv1.weight.dtype).to(self.conv2.weight.device)
        x = F.relu(self.conv1(x)).reshape(
            x.shape[0], self.conv1.out_channels, 8 // self.conv1.stride[0], -1
        )
        x = F.relu(self.bn(self.conv2(x)))
        assert x.shape[1] == self.conv2.weight.shape[0] == self.bn.num_features
        return self.head(x)


@net(IMAGE)
class TrainingFlag(Two):
    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Any:
        early = F.relu(self.conv1(x))
        out = self.head(F.relu(self.bn(self.conv2(early))))
        return (out, self.aux(early).mean((2, 3))) if self.training else out


@net(IMAGE)
class UnknownOps(Two):
    """What mixes or orders channels keeps them; the layers between may shrink."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3, self.attend = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.conv1(x))
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        x = F.relu(self.conv2(x * torch.sigmoid(self.attend(seen))))
        x = torch.cumsum(self.conv3(self.bn(x)), dim=1)
        return self.head(F.normalize(x.sort(1).values, dim=1))


class ScaledConv(nn.Conv2d):
    """A convolution of the user's own, with a scale for each filter."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__(cin, cout, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(cout))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale.view(1, -1, 1, 1)


@net(IMAGE)
class OwnLayers(nn.Module):
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1))
        self.conv1, self.conv2 = ScaledConv(3, 8), ScaledConv(8, 8)
        self.conv1.weight.requires_grad_(False)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        x = torch.sigmoid(self.conv1(x - self.mean))
        return self.fc(pooled(F.relu(self.conv2(x))))


@net(IMAGE)
class Checkpointed(Two):
    def inside(self, x: Tensor) -> Any:
        return F.relu(self.bn(self.conv2(F.relu(x))))

    def forward(self, x: Tensor) -> Any:
        return self.head(checkpoint(self.inside, self.conv1(x), use_reentrant=False))


add(
    NETS,
    "Sequential",
    lambda: nn.Sequential(conv_bn(3, 8), conv_bn(8, 6), nn.Flatten(), nn.Linear(384, 4)),
    lambda: example(IMAGE),
)
