"""COMIC (S129): tags with a long tail, of which 40 % of the marks are missing.

Images of two digits side by side (scikit-learn), digit k drawn with a frequency that falls from 1 to 1/15; 1500 for
training; 1000 fully marked ones, all digits alike, to test on. A Learner with the small convolutional network. The
baselines are cross-entropy and the asymmetric focal loss (exponents 0 and 4, clip .05), the loss of COMIC without its
parts. The rare digits are the three rarest.
"""

import numpy as np
import torch
from results import arguments, interval, record, shown
from s125_pu_mlc import kept
from sklearn.metrics import average_precision_score
from two_digits import two_digits

from anygrain.encoders import Convolutional
from anygrain.labels import Tags
from anygrain.learn import Learner
from anygrain.learn.loss import terms_alone
from anygrain.robust import COMIC

EPOCHS = 50
RARE = slice(7, 10)


def asymmetric(log_probs, posterior):
    """Asymmetric focal loss of entries, (B, 2), (B, 2) -> (B,)."""
    on = log_probs[:, 1].exp()
    off = (1 - on + 0.05).clamp(max=1.0)
    return -(posterior[:, 1] * log_probs[:, 1] + posterior[:, 0] * (1 - off).detach() ** 4 * off.log())


class Watched(COMIC):
    """COMIC, and how many of the marks that it recalls in the last epoch are right."""

    def __init__(self, truth, **how):
        super().__init__(**how)
        self.truth, self.right, self.all = truth, 0, 0

    def on_epoch_start(self, epoch):
        super().on_epoch_start(epoch)
        self.right = self.all = 0

    def forward(self, step):
        from anygrain.robust.comic import recalled
        from anygrain.robust.tag_tables import table_of

        value = super().forward(step)
        if self.epoch:
            table = table_of(step, self.marks)
            more = recalled(table.log_odds.detach(), table.on, self.threshold) & ~table.on
            place, tag = step.view.place, self.marks.tag[step.instances]
            truth = torch.zeros_like(table.on)
            truth[place, tag] = self.truth[self.marks.rows[step.instances], tag] == 1
            self.right, self.all = self.right + int((more & truth).sum()), self.all + int(more.sum())
        return value


def precisions(marks, images, test, truth, seed, **how):
    """Average precision of every tag on the test images."""
    model = Learner(Convolutional(), seed=seed, epochs=EPOCHS, augmentation=None, batch_size=64, **how)
    model.fit(images, Tags(torch.from_numpy(marks)))
    return average_precision_score(truth, model.predict_proba(test), average=None)


def main():
    given = arguments(__doc__, 5)
    shares = 15.0 ** -(np.arange(10) / 9)
    found = {"comic": [], "asymmetric": [], "cross-entropy": []}
    right = []
    for seed in range(given.seeds):
        images, tags = two_digits(1500, seed, shares=shares)
        test, truth = two_digits(1000, seed, split="test")
        marks = kept(tags, 0.6, seed)
        term = Watched(torch.from_numpy(tags))
        found["comic"].append(precisions(marks, images, test, truth, seed, loss=terms_alone, terms=[term]))
        found["asymmetric"].append(precisions(marks, images, test, truth, seed, loss=asymmetric))
        found["cross-entropy"].append(precisions(marks, images, test, truth, seed))
        right.append(term.right / max(term.all, 1))
        said = {n: (round(100 * v[-1].mean(), 1), round(100 * v[-1][RARE].mean(), 1)) for n, v in found.items()}
        print(seed, said, f"recalled {term.all}, right {right[-1]:.2f}", flush=True)
    total = {name: np.array([v.mean() for v in values]) for name, values in found.items()}
    rare = {name: np.array([v[RARE].mean() for v in values]) for name, values in found.items()}
    gains = total["comic"] - total["asymmetric"], rare["comic"] - rare["asymmetric"]
    record(
        "S129",
        ours=f"mAP, %: {shown(total['comic'])}, rare {shown(rare['comic'])}; recalled right {shown(right)} %",
        baseline="; ".join(f"{n} {shown(total[n])}, rare {shown(rare[n])}" for n in ("asymmetric", "cross-entropy")),
        interval=f"gain on asymmetric {shown(gains[0])}, rare {shown(gains[1])}",
        came_out=interval(gains[0])[0] >= 1 and interval(gains[1])[0] >= 2 and np.mean(right) >= 0.7,
        note="drawing of rows by weights",
        dry=given.dry,
    )


if __name__ == "__main__":
    main()
