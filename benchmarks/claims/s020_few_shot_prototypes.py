"""S020: FoPro on digits from a noisy other domain, with four trusted rows per class.

    python benchmarks/claims/s020_few_shot_prototypes.py

The noisy rows are blurred by a 3 x 3 mean; 40 % of their labels are wrong, and 15 % of the rows are junk (pixels in
random order, random label). Four clean rows per class are trusted; accuracy is on clean digits. Baselines have the same
network: all labels as they are, the same and then fitted on to the trusted rows, and trusted rows alone.
"""

import numpy as np
import torch
from results import arguments, interval, record, shown
from sklearn.datasets import load_digits
from torch import Tensor

from anygrain.labels import Exact, Labels, Noisy
from anygrain.learn import Learner, Procedure
from anygrain.robust.few_shot_prototypes import DROP, FewShotPrototypes


class FineTuned(Procedure):
    """Cross-entropy on all labels by Adam, then on the trusted rows (the first ones) at a tenth of the rate."""

    def __init__(self, trusted: int, fine_tune: bool) -> None:
        self.trusted, self.fine_tune = trusted, fine_tune

    def run(self, learner: Learner, features: Tensor, labels: Labels) -> None:
        target = labels.posterior(torch.full((len(features), 10), -np.log(10.0)))
        generator = torch.Generator().manual_seed(learner.seed)
        head = learner.head_
        head.draw(generator)
        head.train()
        for rows, rate, epochs in ((len(features), 0.002, 40), (self.trusted, 0.0002, 60 * self.fine_tune)):
            stepper = torch.optim.Adam(head.parameters(), lr=rate)
            for _ in range(epochs):
                for batch in torch.randperm(rows, generator=generator).split(128):
                    value = -(target[batch] * head(features[batch])).sum(dim=1).mean()
                    stepper.zero_grad()
                    value.backward()
                    stepper.step()


def data(seed: int) -> tuple[np.ndarray, ...]:
    """Rows, the 40 trusted ones first; their labels, true classes (-1: junk); test rows and their classes."""
    x, y = load_digits(return_X_y=True)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(x))
    x, y = x[order] / 16, y[order]
    test, truth, x, y = x[:500], y[:500], x[500:], y[500:]
    first = np.concatenate([np.flatnonzero(y == c)[:4] for c in range(10)])
    rest = np.setdiff1d(np.arange(len(x)), first)
    padded = np.pad(x[rest].reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    web = np.mean([padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)], axis=0).reshape(-1, 64)
    true = y[rest].copy()
    given = np.where(generator.random(len(rest)) < 0.4, (true + generator.integers(1, 10, len(rest))) % 10, true)
    junk = generator.random(len(rest)) < 0.15
    web[junk] = generator.permuted(web[junk], axis=1)
    given[junk] = generator.integers(0, 10, junk.sum())
    true[junk] = -1
    return np.concatenate([x[first], web]), np.r_[y[first], given], np.r_[y[first], true], test, truth


def main() -> None:
    chosen = arguments(__doc__, seeds=5)
    found: dict[str, list[float]] = {}
    for seed in range(chosen.seeds):
        x, given, true, test, truth = data(seed)
        known = np.arange(len(x)) < 40
        labels = Exact(torch.tensor(np.where(known, given, -1)), 10) & Noisy(
            torch.tensor(np.where(known, -1, given)), 10
        )
        ours = FewShotPrototypes()
        ways: dict[str, Procedure] = {
            "FoPro": ours,
            "all labels": FineTuned(40, False),
            "then fine-tuned": FineTuned(40, True),
        }
        for way, procedure in ways.items():
            model = Learner(head="mlp", procedure=procedure, seed=seed).fit(x, labels if way == "FoPro" else given)
            found.setdefault(way, []).append(float(model.score(test, truth)))
        alone = Learner(head="mlp", seed=seed).fit(x[:40], given[:40])
        found.setdefault("trusted rows alone", []).append(float(alone.score(test, truth)))
        label, dropped = ours.decisions_.label.numpy(), (ours.decisions_.decision == DROP).numpy()
        kept = (label >= 0) & ~known
        found.setdefault("purity given", []).append(float((given == true)[~known].mean()))
        found.setdefault("purity kept", []).append(float((label == true)[kept].mean()))
        found.setdefault("junk dropped", []).append(float(dropped[true < 0].mean()))
        found.setdefault("good rows dropped", []).append(float(dropped[true >= 0].mean()))
    for way, values in found.items():
        print(f"{way:20} {shown(values)}")
    gain = np.array(found["FoPro"]) - found["then fine-tuned"]
    purer = np.array(found["purity kept"]) - found["purity given"]
    record(
        "S020",
        ours=f"{shown(found['FoPro'])}; labels right {shown(found['purity kept'])}; junk dropped "
        f"{shown(found['junk dropped'])}, good rows dropped {shown(found['good rows dropped'])}",
        baseline="; ".join(f"{w} {shown(found[w])}" for w in ("all labels", "then fine-tuned", "trusted rows alone"))
        + f"; labels right as given {shown(found['purity given'])}",
        interval=f"gain over fine-tuning {shown(gain)}; labels purer by {shown(purer)}",
        came_out=interval(gain)[0] >= 2 and interval(purer)[0] >= 20 and np.mean(found["junk dropped"]) >= 0.7,
        note="a perceptron on pixels in place of a small convolutional network; junk is told by how badly its "
        "projection is turned back into it, which the source does not do (without: about 1 % of it is dropped)",
        dry=chosen.dry,
    )


if __name__ == "__main__":
    main()
