"""S050: STORM on digits with 30 % wrong labels, and on clean ones.

    python benchmarks/claims/s050_storm.py

1,200 training rows, a network 64-128-10 with dropout .2, batches of 32, 25 epochs. The baseline is the same training
with equal weights; co-teaching that is told the share of wrong labels stands beside.
"""

import numpy as np
import torch
from results import arguments, interval, record, shown
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from anygrain.learn import Learner
from anygrain.robust.co_teaching import CoTeaching
from anygrain.robust.storm import Storm


class Equal(nn.Module):
    """Weight 1 for all."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.ones(len(features))


def data(seed: int, noise: float) -> tuple[np.ndarray, ...]:
    """Training rows, their labels, which of them are wrong, test rows and their classes."""
    x, y = load_digits(return_X_y=True)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(x))
    x, y = x[order] / 16, y[order]
    wrong = generator.random(1200) < noise
    given = np.where(wrong, (y[:1200] + generator.integers(1, 10, 1200)) % 10, y[:1200])
    return x[:1200], given, wrong, x[1200:], y[1200:]


def main() -> None:
    chosen = arguments(__doc__, seeds=10)
    accuracy: dict[tuple[float, str], list[float]] = {}
    found, weights = [], []
    for noise in (0.3, 0.0):
        for seed in range(chosen.seeds):
            x, given, wrong, test, truth = data(seed, noise)
            ways = {"STORM": Storm(), "equal weights": Storm(rescaler=Equal()), "STORM, floor .4": Storm(floor=0.4)}
            ways["co-teaching"] = CoTeaching(max(noise, 0.05), epochs=40, batch_size=64)
            for way, procedure in ways.items():
                model = Learner(head="mlp", procedure=procedure, seed=seed).fit(x, given)
                accuracy.setdefault((noise, way), []).append(float(model.score(test, truth)))
            if noise:
                weight = ways["STORM"].weights_.numpy()
                found.append(float(roc_auc_score(wrong, 1 - weight)))
                weights.append((float(weight[wrong].mean()), float(weight[~wrong].mean())))
    for (noise, way), values in accuracy.items():
        print(f"noise {noise}: {way:18} {shown(values)}")
    print("AUC of 1 - weight for wrong labels", shown(found, 1, 3), "weights", np.mean(weights, axis=0).round(2))
    gain = np.array(accuracy[0.3, "STORM"]) - accuracy[0.3, "equal weights"]
    cost = np.array(accuracy[0.0, "equal weights"]) - accuracy[0.0, "STORM"]
    record(
        "S050",
        ours=f"30 % wrong: {shown(accuracy[0.3, 'STORM'])}, AUC {shown(found, 1, 3)}; clean: "
        f"{shown(accuracy[0.0, 'STORM'])}, with a floor of .4 {shown(accuracy[0.0, 'STORM, floor .4'])}",
        baseline=f"equal weights, 30 % wrong: {shown(accuracy[0.3, 'equal weights'])}; clean: "
        f"{shown(accuracy[0.0, 'equal weights'])}; co-teaching told the noise: {shown(accuracy[0.3, 'co-teaching'])}",
        interval=f"gain at 30 % {shown(gain)}; cost on clean labels {shown(cost)}",
        came_out=interval(gain)[0] >= 1.5 and float(np.mean(found)) > 0.97 and interval(cost)[0] <= 4,
        dry=chosen.dry,
    )


if __name__ == "__main__":
    main()
