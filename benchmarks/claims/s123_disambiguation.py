"""S123: merging confused classes, soft labels of another network, and two resolutions, on digits.

    python benchmarks/claims/s123_disambiguation.py

(a) Five pairs of digits have 40 % of their labels swapped: are the pairs found, and how good is the group accuracy?
(b) Five labels per digit and 450 rows without; another network, trained on other rows to tell five groups of two
digits, gives soft labels of all of them as the second target of a small convolutional network.
(c) 8 x 8 and 4 x 4 pixels, each read by a perceptron, fused.
"""

import numpy as np
import torch
from results import arguments, interval, record, shown
from sklearn.datasets import load_digits

from anygrain.encoders import Convolutional
from anygrain.learn import Learner
from anygrain.robust.disambiguation import Disambiguation, SecondTarget, fuse

PAIRS = [(0, 6), (1, 8), (2, 7), (3, 5), (4, 9)]
OF_GROUP = np.array([0, 1, 2, 3, 4, 3, 0, 2, 1, 4])


def main() -> None:
    chosen = arguments(__doc__, seeds=5)
    x, y = load_digits(return_X_y=True)
    exact, merged, plain, without, with_soft, fine, coarse, both = ([] for _ in range(8))
    for seed in range(chosen.seeds):
        generator = np.random.default_rng(seed)
        order = generator.permutation(len(x))
        train, test = order[:1200], order[1200:]
        given = y[train].copy()
        for a, b in PAIRS:
            swap = np.isin(given, [a, b]) & (generator.random(len(given)) < 0.4)
            given[swap] = a + b - given[swap]
        procedure = Disambiguation()
        model = Learner(procedure=procedure, seed=seed).fit(x[train] / 16, given)
        base = Learner(seed=seed).fit(x[train] / 16, given)
        group = procedure.group_.numpy()
        exact.append(float(sorted(tuple(np.flatnonzero(group == g)) for g in np.unique(group)) == PAIRS))
        for found, fitted in ((merged, model), (plain, base)):
            said = fitted.predict_proba(x[test] / 16) @ np.eye(5)[OF_GROUP]
            found.append(float((said.argmax(axis=1) == OF_GROUP[y[test]]).mean()))

        half, rest = train[:700], train[700:]
        few = np.full(len(rest), -1)
        for c in range(10):
            few[np.flatnonzero(y[rest] == c)[:5]] = c
        knowing = Learner(seed=seed).fit(x[half] / 16, OF_GROUP[y[half]])
        images = (x.reshape(-1, 8, 8) * 15.9).astype(np.uint8)
        for found, weight in ((without, 0.0), (with_soft, 0.25)):
            term = SecondTarget(torch.tensor(knowing.predict_proba(x[rest] / 16)), weight=weight)
            net = Learner(encoder=Convolutional(widths=(16, 32)), terms=[term], seed=seed, batch_size=100, epochs=30)
            found.append(float(net.fit(images[rest], few).score(images[test], y[test])))

        small = x.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(len(x), -1)
        nets = [Learner(head="mlp", seed=seed).fit(z[train[:200]], y[train[:200]]) for z in (x, small)]
        log_probs = [net.log_probs(z[test]) for net, z in zip(nets, (x, small), strict=True)]
        for found, said in ((fine, log_probs[0]), (coarse, log_probs[1]), (both, fuse(log_probs))):
            found.append(float((said.argmax(dim=1).numpy() == y[test]).mean()))
        print(f"seed {seed} done", flush=True)
    soft = np.array(with_soft) - without
    fused = np.array(both) - np.maximum(fine, coarse)
    parts = {
        "pairs found": min(exact) == 1,
        "soft labels gain": interval(soft)[0] >= 1,
        "fusion gains beyond noise": interval(fused)[1] > 0,
    }
    said_of = ", ".join(f"{part}: {'yes' if holds else 'no'}" for part, holds in parts.items())
    record(
        "S123",
        ours=f"pairs found exactly {shown(exact, 100, 0)} %, group accuracy {shown(merged)}; with soft labels "
        f"{shown(with_soft)}; fused {shown(both)}",
        baseline=f"group accuracy unmerged {shown(plain)}; without soft labels {shown(without)}; 8 x 8 {shown(fine)}, "
        f"4 x 4 {shown(coarse)}",
        interval=f"merging {shown(np.array(merged) - plain)}; soft labels {shown(soft)}; fusion over the better one "
        f"{shown(fused)}",
        came_out=all(parts.values()),
        note=f"{said_of}; digits in place of 20 classes of CIFAR-100, 8 and 4 pixels in place of 32 and 16",
        dry=chosen.dry,
    )


if __name__ == "__main__":
    main()
