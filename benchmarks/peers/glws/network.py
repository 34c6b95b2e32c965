"""The small residual network that both sides train, and plain training of it with true labels."""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anygrain.encoders.image import ImageEncoder
from benchmarks.peers.glws.pictures import Pictures

BATCH = 32  # pictures at once, both sides
WIDTH = 32  # channels of the middle


class Network(nn.Module):
    """(B, channels, height, width) to (B, 2 WIDTH): strided convolutions, one residual pair, the mean over places.

    Group normalisation, which treats every picture alone, and features of mean 0 and mean square 1.

    Args:
        channels: of a picture.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.begin = nn.Sequential(*_convolution(channels, WIDTH // 2, 2), *_convolution(WIDTH // 2, WIDTH, 2))
        self.around = nn.Sequential(*_convolution(WIDTH, WIDTH, 1), *_convolution(WIDTH, WIDTH, 1)[:2])
        self.end = nn.Sequential(*_convolution(WIDTH, 2 * WIDTH, 2))
        self.scale = nn.LayerNorm(2 * WIDTH, elementwise_affine=False)

    def forward(self, pictures: Tensor) -> Tensor:
        seen = self.begin(pictures)
        return self.scale(self.end(F.relu(seen + self.around(seen))).mean(dim=(2, 3)))


def _convolution(before: int, width: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(before, width, 3, stride, padding=1, bias=False), nn.GroupNorm(4, width), nn.ReLU()]


class Small(ImageEncoder):
    """`Network` as an encoder."""

    feature_dim = 2 * WIDTH

    def build(self) -> None:
        self.network = Network(self.channels)


def classifier(channels: int, n_classes: int) -> nn.Module:
    """`Network` with a linear layer to the classes."""
    return nn.Sequential(Network(channels), nn.Linear(2 * WIDTH, n_classes))


def supervised(
    pictures: Pictures, rows: Tensor, classes: Tensor, n_classes: int, *, epochs: int, seed: int
) -> tuple[nn.Module, float]:
    """The classifier trained with the true classes (n,) of some rows (n,): what labels of other kinds may come near to.

    Returns:
        The classifier, and seconds of processor time per epoch.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = classifier(pictures.channels, n_classes)
    steps = epochs * (len(rows) // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.05)
    shown = pictures.train[rows]
    began = time.process_time()
    for _ in range(epochs):
        order = torch.randperm(len(rows), generator=generator)
        for part in order[: len(rows) // BATCH * BATCH].split(BATCH):
            loss = F.cross_entropy(model(pictures.scaled(pictures.weak(shown[part], generator))), classes[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval(), (time.process_time() - began) / epochs


def probabilities(model: Callable[[Tensor], Tensor], pictures: Pictures, shown: Tensor) -> Tensor:
    """(N, K) of pictures, uint8."""
    with torch.no_grad():
        return torch.cat([model(pictures.scaled(part)).softmax(dim=1) for part in shown.split(500)])
