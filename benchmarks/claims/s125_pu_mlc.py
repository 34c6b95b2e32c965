"""PU-MLC (S125): tags learnt from 30 % of the marks, with no negative one.

Images of two digits side by side (scikit-learn), 1500 for training, 1000 fully marked ones to test on; a Learner with
the small convolutional network, trained with the head. Baselines: cross-entropy with unknown taken for off, and the
same with label smoothing .1.
"""

import numpy as np
import torch
from results import arguments, interval, record, shown
from sklearn.metrics import average_precision_score
from two_digits import two_digits

from anygrain.encoders import Convolutional
from anygrain.labels import Tags
from anygrain.learn import Learner
from anygrain.robust import LabelSmoothing, method

EPOCHS = 50


def kept(tags, share, seed):
    """Marks (N, L): 1 for a random share of those that are on, else 0."""
    return tags * (np.random.default_rng(seed + 77).random(tags.shape) < share)


def precision_of(marks, images, test, truth, seed, **how):
    """mAP on the test images."""
    model = Learner(Convolutional(), seed=seed, epochs=EPOCHS, augmentation=None, batch_size=64, **how)
    model.fit(images, Tags(torch.from_numpy(marks)))
    return average_precision_score(truth, model.predict_proba(test), average="macro")


def main():
    given = arguments(__doc__, 5)
    found = {"pu_mlc": [], "unknown is off": [], "smoothed": []}
    for seed in range(given.seeds):
        images, tags = two_digits(1500, seed)
        test, truth = two_digits(1000, seed, split="test")
        marks = kept(tags, 0.3, seed)
        positive = np.where(marks == 1, 1, -1)
        found["pu_mlc"].append(precision_of(positive, images, test, truth, seed, **method("pu_mlc", gamma=0.85)))
        found["unknown is off"].append(precision_of(marks, images, test, truth, seed))
        found["smoothed"].append(precision_of(marks, images, test, truth, seed, loss=LabelSmoothing(0.1)))
        print(seed, {name: round(100 * values[-1], 1) for name, values in found.items()}, flush=True)
    gain = np.array(found["pu_mlc"]) - found["unknown is off"]
    record(
        "S125",
        ours=f"mAP, %: {shown(found['pu_mlc'])}",
        baseline=(
            f"unknown taken for off {shown(found['unknown is off'])}, with label smoothing {shown(found['smoothed'])}"
        ),
        interval=f"gain {shown(gain)}",
        came_out=interval(gain)[0] >= 2,
        dry=given.dry,
    )


if __name__ == "__main__":
    main()
