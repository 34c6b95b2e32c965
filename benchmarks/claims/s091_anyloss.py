"""AnyLoss (S091): training for balanced accuracy on imbalanced data.

Breast cancer with malignant rows thinned to 5 %, and digits, eight against the rest with noise of .35; both from
scikit-learn, standardised, half of the rows for training. A linear model, full batch, Adam .1, 1000 steps, from zero:
`AnyLoss` for a measure, and cross-entropy; also cross-entropy with the threshold that is best for the measure on the
training rows. Measures at threshold .5 on the other half.
"""

import numpy as np
import torch
from results import arguments, interval, record, shown
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.model_selection import train_test_split

from anygrain.learn import cross_entropy
from anygrain.robust import AnyLoss

MEASURES = {"balanced_accuracy": balanced_accuracy_score, "f1": f1_score}


def breast_cancer(seed):
    x, benign = load_breast_cancer(return_X_y=True)
    rng = np.random.default_rng(seed)
    malignant = np.flatnonzero(benign == 0)
    others = np.flatnonzero(benign == 1)
    kept = rng.choice(malignant, round(len(others) * 0.05 / 0.95), replace=False)
    rows = np.concatenate([others, kept])
    return x[rows], (benign[rows] == 0).astype(int)


def eights(seed):
    x, digit = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    return x / 16 + rng.normal(0, 0.35, x.shape), (digit == 8).astype(int)


def scores(x, y, loss, *, steps=1000):
    """Weights of a linear model fitted with a loss, full batch."""
    design = torch.tensor(np.hstack([x, np.ones((len(x), 1))]), dtype=torch.float32)
    target = torch.eye(2)[torch.tensor(y)]
    weight = torch.zeros(design.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        odds = design @ weight
        log_probs = torch.nn.functional.logsigmoid(torch.stack([-odds, odds], dim=1))
        loss(log_probs, target).mean().backward()
        optimizer.step()
    return weight.detach().numpy()


def run(data, seeds):
    """{measure: {who: (seeds,)}} on the rows that were not trained on."""
    out = {name: {"anyloss": [], "plain": [], "tuned": []} for name in MEASURES}
    for seed in range(seeds):
        x, y = data(seed)
        train, test, y_train, y_test = train_test_split(x, y, test_size=0.5, random_state=seed, stratify=y)
        mean, sd = train.mean(0), train.std(0) + 1e-9
        train, test = (train - mean) / sd, (test - mean) / sd
        plain = scores(train, y_train, cross_entropy)
        odds, fitted = (np.hstack([z, np.ones((len(z), 1))]) @ plain for z in (test, train))
        for name, measure in MEASURES.items():
            ours = np.hstack([test, np.ones((len(test), 1))]) @ scores(train, y_train, AnyLoss(name))
            grid = np.quantile(fitted, np.linspace(0.01, 0.999, 200))
            best = grid[np.argmax([measure(y_train, fitted > t) for t in grid])]
            out[name]["anyloss"].append(measure(y_test, ours > 0))
            out[name]["plain"].append(measure(y_test, odds > 0))
            out[name]["tuned"].append(measure(y_test, odds > best))
    return out


def main():
    given = arguments(__doc__, 20)
    found = {"breast cancer": run(breast_cancer, given.seeds), "eights": run(eights, given.seeds)}
    gains = {d: np.array(m["balanced_accuracy"]["anyloss"]) - m["balanced_accuracy"]["plain"] for d, m in found.items()}
    for data, measures in found.items():
        for name, who in measures.items():
            print(data, name, {w: shown(v) for w, v in who.items()})
    came_out = interval(gains["breast cancer"])[0] >= 1 and interval(gains["eights"])[0] >= 5

    def line(name, who):
        return "; ".join(f"{data} {shown(measures[name][who])}" for data, measures in found.items())

    record(
        "S091",
        ours=f"balanced accuracy, %: {line('balanced_accuracy', 'anyloss')}; F1: {line('f1', 'anyloss')}",
        baseline=(
            f"cross-entropy: {line('balanced_accuracy', 'plain')}, its threshold tuned "
            f"{line('balanced_accuracy', 'tuned')}; F1: {line('f1', 'plain')}, tuned {line('f1', 'tuned')}"
        ),
        interval="gain in balanced accuracy: " + "; ".join(f"{d} {shown(g)}" for d, g in gains.items()),
        came_out=came_out,
        dry=given.dry,
    )


if __name__ == "__main__":
    main()
