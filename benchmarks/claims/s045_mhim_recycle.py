"""MHIM-MIL v2 (S045): tokens of the masked instances give back what a large random mask takes.

Bags of digits as for S048 (200 of 20 to 50, every second with 1 to 3 nines), attention pooling of 64 hidden units, 40
epochs; then, with it as the first teacher, 40 epochs with the top 1 % (falling to none) and 80 % of the rest masked in
every step, the consistency weighed .1. Version 1 drops them; version 2 leaves 0, 1 or 5 tokens of the 80 %, and of all
instances when it answers (.1, and tokens in answers, were chosen on bags of other seeds). Instance scores: the
class-aware probability of version 2 against attention. It comes out when five tokens have a higher bag AUC than version
1 under the same mask (lower end of the interval, paired by seed), and the class-aware score ranks instances better than
attention.
"""

import numpy as np
import torch
from results import arguments, interval, record, shown
from s048_mhim import ENCODER, TRAINING, base, measured, tables
from sklearn.metrics import roc_auc_score

from anygrain.bags import mhim
from anygrain.labels import Exact
from anygrain.learn import Learner

MASK = {"random": 0.8, "high": 0.01, "part": 1.0, "decays_over": TRAINING["epochs"], "momentum": 0.99, "alpha": 0.1}


def ways(teacher):
    how = {**MASK, "teacher": teacher, "encoder": {**ENCODER, "recycle_all": True}}
    yield "version 1", mhim(1, **how)
    for tokens in (0, 1, 5):
        yield f"{tokens} tokens", mhim(2, recycle=tokens, target=1, **how)


def main():
    given = arguments(__doc__, 5)
    bag: dict[str, list[float]] = {}
    ranks: dict[str, list[float]] = {"class-aware": [], "attention": []}
    for seed in range(given.seeds):
        train, w, test, y_test, w_test = tables(seed)
        teacher = base(seed).fit(train, Exact(w, 2))
        bag.setdefault("teacher", []).append(measured(teacher, test, y_test, w_test)[0])
        for name, how in ways(teacher):
            model = Learner(**how, seed=seed, **TRAINING).fit(train, Exact(w, 2))
            bag.setdefault(name, []).append(measured(model, test, y_test, w_test)[0])
            if name == "5 tokens":
                attention = np.asarray(model.attention(test))
                with torch.no_grad():
                    instances = model.encoder_.instances(test)
                    scaled = torch.as_tensor(attention, dtype=instances.dtype)[:, None] * instances
                    probs = model.head_.logits(scaled).double().softmax(1)[:, 1].numpy()
                ranks["class-aware"].append(roc_auc_score(y_test, probs))
                ranks["attention"].append(roc_auc_score(y_test, attention))
        print(seed, {n: round(float(v[-1]), 3) for n, v in {**bag, **ranks}.items()}, flush=True)
    of_bag = {name: np.array(values) for name, values in bag.items()}
    gain = {n: interval(of_bag["5 tokens"] - of_bag[n]) for n in ("version 1", "0 tokens", "1 tokens")}
    better = interval(np.array(ranks["class-aware"]) - ranks["attention"])
    record(
        "S045",
        ours=f"bag AUC with 80 % masked, five tokens {shown(of_bag['5 tokens'])}",
        baseline=", ".join(f"{n} {shown(of_bag[n])}" for n in (*gain, "teacher")),
        interval="; ".join(f"over {n} {m:+.1f} [{low:+.1f}, {high:+.1f}]" for n, (m, low, high) in gain.items()),
        came_out=gain["version 1"][1] > 0 and better[1] > 0,
        note=(
            f"instance AUC of the class-aware score {shown(ranks['class-aware'])}, of attention "
            f"{shown(ranks['attention'])}; {given.seeds} seeds"
        ),
        dry=given.dry,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
