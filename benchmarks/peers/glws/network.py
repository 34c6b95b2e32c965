"""The small residual network that both sides train, and plain training of it with true labels."""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers.glws.pictures import Pictures, weak_view

BATCH = 64  # pictures at once, both sides


class Network(nn.Module):
    """(B, channels, height, width) to (B, features): three strided convolutions, one residual pair, the mean over places.

    Group normalisation, which treats every picture alone.

    Args:
        channels: of a picture.
        width: channels of the middle.
    """

    def __init__(self, channels: int, width: int = 48) -> None:
        super().__init__()
        self.begin = nn.Sequential(
            nn.Conv2d(channels, width // 2, 3, stride=2, padding=1, bias=False),
            nn.GroupNorm(4, width // 2),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1, bias=False),
            nn.GroupNorm(4, width),
            nn.ReLU(),
        )
        self.around = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(4, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(4, width),
        )
        self.end = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
            nn.GroupNorm(4, 2 * width),
            nn.ReLU(),
        )
        self.feature_dim = 2 * width

    def forward(self, pictures: Tensor) -> Tensor:
        seen = self.begin(pictures)
        return self.end(F.relu(seen + self.around(seen))).mean(dim=(2, 3))


def classifier(channels: int, n_classes: int) -> nn.Module:
    """Network with a linear layer to the classes."""
    network = Network(channels)
    return nn.Sequential(network, nn.Linear(network.feature_dim, n_classes))


def supervised(
    pictures: Pictures, rows: Tensor, classes: Tensor, n_classes: int, *, epochs: int, seed: int
) -> tuple[nn.Module, float]:
    """The classifier trained with the true classes (n,) of some rows (n,): what labels of other kinds may come near to.

    Returns:
        The classifier, and seconds per epoch.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = classifier(pictures.channels, n_classes)
    steps = epochs * (len(rows) // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.1)
    shown = pictures.scaled(pictures.train[rows])
    began = time.process_time()
    for _ in range(epochs):
        order = torch.randperm(len(rows), generator=generator)
        for part in order[: len(rows) // BATCH * BATCH].split(BATCH):
            loss = F.cross_entropy(model(weak_view(shown[part], pictures.flips, generator)), classes[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval(), (time.process_time() - began) / epochs


def probabilities(model: Callable[[Tensor], Tensor], pictures: Pictures, shown: Tensor) -> Tensor:
    """(N, K) of pictures, uint8."""
    with torch.no_grad():
        return torch.cat([model(pictures.scaled(part)).softmax(dim=1) for part in shown.split(500)])
