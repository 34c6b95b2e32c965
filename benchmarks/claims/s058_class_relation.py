"""S058: new digits beside known ones, with and without what a teacher says of the known ones.

    python benchmarks/claims/s058_class_relation.py

Digits 0 to 4 labelled, 5 to 9 not; 1,200 rows. New-class accuracy of the rows without labels under the best matching
(task-aware, known classes left out), and of known classes on the other 597 rows. The encoder is a perceptron on pixels,
trained end to end; views differ by noise.

Ours: the weight of a row has no gradient, and the relation the weight 1. Published: it has, and .1. Encoder, noise,
epochs and both weights were chosen on seeds from 100 on.
"""

from typing import Any, Self

import numpy as np
import torch
from results import arguments, interval, record, shown
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from torch import Tensor, nn

from anygrain.discover import ClassRelationDistillation
from anygrain.encoders.trainable import Arrays, Augmentation, InMemory, TrainableEncoder, Training, seeded
from anygrain.labels import Exact
from anygrain.metrics import hungarian_accuracy

KNOWN = 5
NOISE = 0.2
WIDTHS = (64, 256, 128)
PACE = {"teacher_epochs": 30, "epochs": 60, "rate": 1e-3, "heads": 2}
WAYS = {
    "relation": {"relation": 1.0, "weight_gradient": False},
    "published": {"relation": 0.1, "weight_gradient": True},
    "none": {"relation": 0.0},
}


class Noise(Augmentation):
    """Noise on every pixel, in both views."""

    def weak(self, arrays: Arrays, generator: torch.Generator) -> Arrays:
        x = arrays["pixels"]
        return {"pixels": (x + NOISE * torch.randn(x.shape, generator=generator)).clamp(0, 1)}

    strong = weak


class Perceptron(TrainableEncoder):
    """Pixels (N, 64) in 0..1 through two layers; features of mean 0 and mean square 1."""

    training_defaults = Training(learning_rate=2e-3)
    feature_dim = WIDTHS[-1]

    def learn(self, data: Any, seed: int = 0) -> Self:
        with seeded(seed):
            self.build()
        return self

    def build(self) -> None:
        last = nn.LayerNorm(WIDTHS[2], elementwise_affine=False)
        self.network = nn.Sequential(nn.Linear(*WIDTHS[:2]), nn.ReLU(), nn.Linear(*WIDTHS[1:]), last)

    def inputs(self, data: Any) -> InMemory:
        return InMemory(pixels=torch.as_tensor(data))

    def encode(self, arrays: Arrays) -> Tensor:
        found: Tensor = self.network((arrays["pixels"] - 0.3) / 0.4)  # middle and deviation of all pixels
        return found

    def augmentation(self) -> Augmentation:
        return Noise()


def main() -> None:
    chosen = arguments(__doc__, seeds=10)
    pixels, y = load_digits(return_X_y=True)
    x = torch.tensor(pixels / 16).float()
    new_of: dict[str, list[float]] = {}
    known_of: dict[str, list[float]] = {}
    for seed in range(chosen.seeds):
        order = np.random.default_rng(seed).permutation(len(x))
        train, test = order[:1200], order[1200:]
        fresh = y[train] >= KNOWN
        labels = Exact(torch.tensor(np.where(fresh, -1, y[train])), KNOWN)
        for way, settings in WAYS.items():
            model = ClassRelationDistillation(
                encoder=Perceptron(), only_new=True, seed=seed, bootstrap=0, **PACE, **settings
            )
            model.fit(x[train], labels, 10)
            old = y[test] < KNOWN
            said = model.log_probs_[fresh][:, KNOWN:].argmax(axis=1)
            new_of.setdefault(way, []).append(hungarian_accuracy(said, y[train][fresh] - KNOWN).all)
            known_of.setdefault(way, []).append(float((model.predict(x[test][old]) == y[test][old]).mean()))
        with torch.no_grad():
            seen = model.teacher_.embed({"pixels": x[train][fresh]}).numpy()
        for way, rows in (("k-means", seen), ("k-means on pixels", pixels[train][fresh])):
            cluster = KMeans(10 - KNOWN, n_init=10, random_state=seed).fit_predict(rows)
            new_of.setdefault(way, []).append(hungarian_accuracy(cluster, y[train][fresh] - KNOWN).all)
        print(f"seed {seed}", {way: round(values[-1], 3) for way, values in new_of.items()}, flush=True)
    new = {way: np.array(values) for way, values in new_of.items()}
    known = {way: np.array(values) for way, values in known_of.items()}
    gain, over, lost = (
        new["relation"] - new["none"],
        new["relation"] - new["k-means"],
        known["relation"] - known["none"],
    )
    published = new["published"] - new["none"]
    record(
        "S058",
        ours=f"new {shown(new['relation'])}, known {shown(known['relation'])}; as published new "
        f"{shown(new['published'])}, known {shown(known['published'])}",
        baseline=f"without the relation new {shown(new['none'])}, known {shown(known['none'])}; k-means on the "
        f"teacher's features {shown(new['k-means'])}, on pixels {shown(new['k-means on pixels'])}",
        interval=f"over none {shown(gain)}, as published {shown(published)}; over k-means {shown(over)}; known "
        f"{shown(lost)}",
        came_out=interval(gain)[0] >= 1 and interval(over)[0] >= 5 and interval(lost)[0] >= -1,
        note="ours: the weight of a row has no gradient, a is 1; published: it has, a is .1. A perceptron on pixels, "
        f"noise in place of shifts; {chosen.seeds} seeds",
        dry=chosen.dry,
    )


if __name__ == "__main__":
    main()
