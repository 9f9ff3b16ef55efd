"""Train a small network and the number of its channels together: the latency is part of the loss.

Each channel of the first layer has a gate of 0 or 1 that multiplies the channel. The sum of the
gates is the number of channels left. It takes the place of the traced number in the op table, so
the latency has a gradient in every gate.
"""

import torch
from torch import Tensor, nn

import hwcost

STRENGTHS = (0.0, 3e3)
STEPS = 60


class Gated(nn.Module):
    """Two convolutions; the channels between them have gates."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, 8, 3, padding=1)
        self.fc = nn.Linear(8, 2)
        self.logits = nn.Parameter(torch.full((channels,), 1.0))

    @property
    def gates(self) -> Tensor:
        """1 for a channel that is left, else 0; backward, the slope of a sigmoid."""
        soft = self.logits.sigmoid()
        return (soft > 0.5).to(soft) + soft - soft.detach()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu() * self.gates[:, None, None]
        scores: Tensor = self.fc(self.conv2(x).relu().mean((2, 3)))
        return scores


def batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return images with horizontal (0) or vertical (1) stripes, and noise."""
    label = torch.randint(0, 2, (32,), generator=generator)
    stripes = torch.tensor([1.0, -1.0]).repeat(4).expand(8, 8)
    image = torch.where(label[:, None, None] == 1, stripes, stripes.T)
    return (image + torch.randn(32, 8, 8, generator=generator))[:, None], label


def train(strength: float) -> tuple[float, int, float]:
    """Return accuracy, channels left and latency in seconds after a training."""
    torch.manual_seed(0)
    data = torch.Generator().manual_seed(1)
    model, criterion = Gated(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)

    workload = hwcost.trace(model, batch(data)[0][:1])
    latency = hwcost.CostModel("gap8_compute", "latency")
    conv1, conv2 = (torch.tensor(workload.rows_of(name)) for name in ("conv1", "conv2"))
    cout, cin = workload.column("cout"), workload.column("cin")

    def cost(channels: Tensor) -> Tensor:
        """Latency where the first layer has so many channels, a scalar."""
        columns = {
            "cout": cout.index_fill(0, conv1, channels),
            "cin": cin.index_fill(0, conv2, channels),
        }
        return latency.total(workload.with_columns(**columns))

    for _ in range(STEPS):
        x, y = batch(data)
        loss = criterion(model(x), y) + strength * cost(model.gates.sum().double())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    x, y = batch(data)
    accuracy = (model(x).argmax(1) == y).double().mean().item()
    left = model.gates.sum().double()
    return accuracy, round(left.item()), cost(left).item()


def main() -> None:
    """Print what the strength of the latency in the loss does."""
    print("strength  accuracy  channels  latency")
    for strength in STRENGTHS:
        accuracy, channels, latency = train(strength)
        print(f"{strength:8.0f}  {accuracy:8.2f}  {channels:8d}  {latency * 1e6:4.0f} us")


if __name__ == "__main__":
    main()
