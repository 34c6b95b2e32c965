r"""Finding wrong labels: ours beside cleanlab, from the same held-out probabilities in the same run.

    ANYGRAIN_DATA=/path/to/data python benchmarks/peers/label_errors.py \
        [--only single,votes,rules,annotators,numbers,tags,tokens,time]

The peer needs `pip install --no-deps cleanlab termcolor tqdm`; without it, ours alone is measured. Probabilities come
from softmax regression that is cross-fitted (5 folds) on the labels that are judged, errors included. A seed is
another part of the pictures, or another draw of the errors, and other folds.
"""

import argparse
import importlib.util
import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

sys.path.insert(0, str(Path(__file__).parent))

from results import write_section

from anygrain.audit import judge_annotators, suspects
from anygrain.labels import Crowd, Exact, Rules, Tags, Value, aggregate

HAS_PEER = importlib.util.find_spec("cleanlab") is not None and importlib.util.find_spec("termcolor") is not None
RULES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
SEEDS = 3
VOTES = ("labelme", "sentiment_text", "rte", "bluebirds", "dogs", "music", "zencrowd_in", "zencrowd_us", "adult")
Scores = dict[str, float]


def folder(name: str) -> Path:
    return Path(os.environ["ANYGRAIN_DATA"]) / name


# -- the same probabilities for everybody ------------------------------------------------------------------------------


def cross_fitted(x: np.ndarray, y: np.ndarray, k: int, seed: int, penalty: float = 1e-3) -> np.ndarray:
    """Probabilities (N, K) of softmax regression on the other four fifths of the rows; y is (N,) or 0 / 1 (N, L)."""
    features, several = torch.from_numpy(np.asarray(x, dtype=np.float32)), y.ndim == 2
    target = torch.from_numpy(y).float() if several else torch.from_numpy(y)
    fold = torch.from_numpy(np.random.default_rng(seed).permutation(len(y)) % 5)
    out = torch.zeros(len(y), k)
    for f in range(5):
        weight = torch.zeros(features.shape[1] + 1, k, requires_grad=True)
        inside, held = features[fold != f], features[fold == f]
        wanted = target[fold != f]
        optimiser = torch.optim.LBFGS([weight], max_iter=60, line_search_fn="strong_wolfe")

        def closure(inside=inside, wanted=wanted, weight=weight, optimiser=optimiser) -> torch.Tensor:
            optimiser.zero_grad()
            logits = inside @ weight[:-1] + weight[-1]
            if several:
                loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
            else:
                loss = torch.nn.functional.cross_entropy(logits, wanted)
            loss = loss + penalty * weight[:-1].square().sum()
            loss.backward()
            return loss

        optimiser.step(closure)
        logits = (held @ weight[:-1] + weight[-1]).detach()
        out[fold == f] = logits.sigmoid() if several else logits.softmax(dim=1)
    return out.double().numpy()


def picture_features(n: int) -> tuple[np.ndarray, "object"]:
    """Features (n, 200) of pictures: responses of 200 whitened patches in four quarters, principal components."""
    import pandas
    from PIL import Image

    table = pandas.read_parquet(folder("cifar10_human") / "train.parquet").iloc[:n]
    pictures = np.stack([np.asarray(Image.open(io.BytesIO(b)).convert("RGB")) for b in table.image])
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    generator = torch.Generator().manual_seed(0)

    def normal(patches: torch.Tensor) -> torch.Tensor:
        spread = (patches.var(dim=1, keepdim=True) + 0.01).sqrt()
        return (patches - patches.mean(dim=1, keepdim=True)) / spread

    seen = torch.nn.functional.unfold(x[:2000], 6)[:, :, ::37].permute(0, 2, 1).reshape(-1, 108)
    seen = normal(seen[torch.randperm(len(seen), generator=generator)[:20_000]])
    mean = seen.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov((seen - mean).T))
    whiten = vectors @ torch.diag((values + 0.1) ** -0.5) @ vectors.T
    white = (seen - mean) @ whiten
    centres = torch.nn.functional.normalize(white[torch.randperm(len(white), generator=generator)[:200]])
    for _ in range(10):
        near = white @ centres.T
        best = near.argmax(dim=1)
        centres = torch.zeros_like(centres).index_add_(0, best, near.gather(1, best[:, None]) * white)
        centres = torch.nn.functional.normalize(centres)
    found = []
    for part in x.split(250):
        patches = torch.nn.functional.unfold(part, 6, stride=3).permute(0, 2, 1)
        near = (((normal(patches.reshape(-1, 108)) - mean) @ whiten) @ centres.T).reshape(len(part), 9, 9, -1)
        two = torch.cat([(near - 0.25).clamp(min=0), (-near - 0.25).clamp(min=0)], dim=3)
        quarters = (two[:, :5, :5], two[:, 4:, :5], two[:, :5, 4:], two[:, 4:, 4:])
        found.append(torch.cat([q.mean(dim=(1, 2)) for q in quarters], dim=1))
    features = torch.cat(found)
    features = (features - features.mean(dim=0)) / (features.std(dim=0) + 0.01)
    _, _, axes = torch.pca_lowrank(features, 200, niter=4)
    features = features @ axes
    return (features / features.std(dim=0).mean()).numpy(), table


def text_features(texts: list[str]) -> np.ndarray:
    """Features (N, 300) of texts: singular vectors of TF-IDF of words and pairs of words."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    counted = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2).fit_transform(texts)
    found = TruncatedSVD(min(300, counted.shape[1] - 1), random_state=0).fit_transform(counted)
    return found / np.sqrt((found**2).mean())


# -- scores ------------------------------------------------------------------------------------------------------------


def scores(wrong: np.ndarray, score: np.ndarray) -> Scores:
    """How well a score (N,) finds wrong labels, bool (N,), and what it is worth as a probability."""
    p = np.clip(score, 1e-6, 1 - 1e-6)
    place = np.minimum((p * 15).astype(int), 14)
    ece = sum(
        abs(p[place == b].mean() - wrong[place == b].mean()) * (place == b).mean()
        for b in range(15)
        if (place == b).any()
    )
    return {
        "auroc": float(roc_auc_score(wrong, score)),
        "ap": float(average_precision_score(wrong, score)),
        "ece": float(ece),
        "log loss": float(-np.log(np.where(wrong, p, 1 - p)).mean()),
    }


def ways_of(log_probs: np.ndarray, given: np.ndarray) -> dict[str, np.ndarray]:
    """P(wrong) of single labels by every way, (N,) each; 1 - quality for the peer."""
    out = {"anygrain": suspects(log_probs, given)["prob_wrong"].to_numpy()}
    if HAS_PEER:
        from cleanlab.rank import get_label_quality_scores

        p = np.exp(log_probs)
        for rule in RULES:
            out[f"cleanlab {rule}"] = 1 - get_label_quality_scores(given, p, method=rule)
    return out


class Table:
    """Scores by set and way, over seeds."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, list[Scores]]] = {}
        self.share: dict[str, list[float]] = {}

    def add(self, name: str, wrong: np.ndarray, by_way: dict[str, np.ndarray]) -> None:
        self.share.setdefault(name, []).append(float(wrong.mean()))
        for way, score in by_way.items():
            got = scores(wrong, score)
            self.found.setdefault(name, {}).setdefault(way, []).append(got)
            print(name, way, {k: round(v, 4) for k, v in got.items()}, flush=True)

    def markdown(self) -> str:
        lines = ["| set (labels wrong) | way | AUROC | average precision | ECE | log loss |", "|---" * 6 + "|"]
        for name, ways in self.found.items():
            share = np.mean(self.share[name])
            for way, each in ways.items():
                cells = [_cell([e[key] for e in each]) for key in ("auroc", "ap", "ece", "log loss")]
                lines.append(f"| {name} ({share:.1%}) | {way} | " + " | ".join(cells) + " |")
        return "\n".join(lines)


def _cell(values: list[float]) -> str:
    """Mean, and the half width of a 95 % interval over seeds where there are several."""
    if len(values) < 2:
        return f"{values[0]:.3f}"
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):.3f} ± {half:.3f}"


# -- sets --------------------------------------------------------------------------------------------------------------


def single() -> str:
    table = Table()
    import pandas

    for name in ("mnist", "cifar10"):
        got = np.load(folder("label_errors") / f"{name}_test.npz")
        votes = pandas.read_parquet(folder("label_errors") / f"{name}_test_votes.parquet")
        p, given = got["probs"].astype(float).clip(1e-9), got["y"].astype(int)
        log_probs = np.log(p / p.sum(axis=1, keepdims=True))
        wrong = np.zeros(len(given), dtype=bool)
        wrong[votes["index"][votes.votes_given < 3]] = True
        asked = votes["index"].to_numpy()
        by_way = ways_of(log_probs, given)
        table.add(f"label_errors {name}, all", wrong, by_way)
        table.add(f"label_errors {name}, asked", wrong[asked], {w: s[asked] for w, s in by_way.items()})
    features, pictures = picture_features(5000 * SEEDS)
    for column in ("aggre_label", "random_label1", "worse_label"):
        for seed in range(SEEDS):
            rows = slice(5000 * seed, 5000 * (seed + 1))
            given = pictures[column].to_numpy().astype(int)[rows]
            log_probs = np.log(cross_fitted(features[rows], given, 10, seed).clip(1e-12))
            wrong = given != pictures["label"].to_numpy()[rows]
            table.add(f"cifar10_human {column}", wrong, ways_of(log_probs, given))
    texts, truth, transition = noisy_texts()
    features = text_features(texts)
    for share in (0.25, 1.0):
        for seed in range(SEEDS):
            rng = np.random.default_rng(seed)
            matrix = share * transition + (1 - share) * np.eye(100)
            given = (rng.random(len(truth))[:, None] > matrix.cumsum(axis=1)[truth]).sum(axis=1).clip(max=99)
            log_probs = np.log(cross_fitted(features, given, 100, seed, penalty=1e-4).clip(1e-12))
            label = "cifar100n matrix on clinc150" + (", a quarter of it" if share < 1 else "")
            table.add(label, given != truth, ways_of(log_probs, given))
    return table.markdown()


def noisy_texts() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Texts of 100 intents in 20 groups of 5, the intent, and the matrix of CIFAR-100N, groups on groups."""
    import pandas

    table = pandas.read_parquet(folder("clinc150") / "clinc150.parquet")
    table = table[table.fine != "oos"]
    names = [fine for _, part in table.groupby("coarse") for fine in sorted(part.fine.unique())[:10]]
    table = table[table.fine.isin(names)].groupby("fine").head(60)
    place = {name: at for at, name in enumerate(names)}
    human = pandas.read_parquet(folder("cifar100n_labels") / "labels.parquet")
    order = pandas.read_parquet(folder("cifar100n_labels") / "classes.parquet").sort_values(["coarse", "fine"])
    moved = {int(c): at for at, c in enumerate(order.fine)}
    counts = np.zeros((100, 100))
    np.add.at(counts, (human.fine.map(moved), human.fine_human.map(moved)), 1)
    return table.text.tolist(), table.fine.map(place).to_numpy(), counts / counts.sum(axis=1, keepdims=True)


def votes() -> str:
    import pandas
    from crowd import load

    table = Table()
    for name in VOTES:
        item, annotator, vote, truth, k = load(name)
        n = len(truth)
        counts = np.bincount(item * k + vote, minlength=n * k).reshape(n, k)
        most = (counts + 1e-3 * np.random.default_rng(0).random(counts.shape)).argmax(axis=1)
        features = None
        if name == "labelme":
            features = np.load(folder("crowd_labelme") / "crowd_labelme.npz")["X_train"].astype(float)
            features = (features - features.mean(axis=0)) / (features.std() + 1e-6)
        if name == "sentiment_text":
            items = pandas.read_parquet(folder("crowd_sentiment_text") / "items.parquet")
            answers = pandas.read_parquet(folder("crowd_sentiment_text") / "answers.parquet")
            column = next(c for c in items.columns if "text" in c or "sent" in c)
            known = dict(zip(items["item"].astype(str), items[column], strict=True))
            features = text_features([known[i] for i in np.unique(answers["item"].astype(str))])
        if features is None:
            p = np.tile((counts.sum(axis=0) + 1) / (counts.sum() + k), (n, 1))
        else:
            p = cross_fitted(features, most, k, 0, penalty=3e-3)
        labels = Crowd(*map(torch.from_numpy, (item, annotator, vote)), k, n_items=n)
        by_way = {"anygrain": suspects(np.log(p.clip(1e-12)), labels)["prob_wrong"].to_numpy()}
        if features is None:
            by_way = {"anygrain": suspects(None, labels)["prob_wrong"].to_numpy()}
        if HAS_PEER:
            from cleanlab.multiannotator import get_label_quality_multiannotator

            wide = pandas.DataFrame({"i": item, "a": annotator, "v": vote}).drop_duplicates(["i", "a"])
            wide = wide.pivot(index="i", columns="a", values="v")
            got = get_label_quality_multiannotator(wide, p, verbose=False)["detailed_label_quality"].to_numpy()
            place = {a: at for at, a in enumerate(wide.columns)}
            by_way["cleanlab crowdlab"] = 1 - got[item, [place[a] for a in annotator]]
        gold = truth[item] >= 0
        label = f"{name}, {'with features' if features is not None else 'votes alone'}"
        table.add(label, (vote != truth[item])[gold], {w: s[gold] for w, s in by_way.items()})
    return table.markdown()


def rules() -> str:
    """Votes of labelling functions, alone and beside a model that learnt from them."""
    import pandas
    from rules import load

    table = Table()
    for name in ("weak_youtube", "weak_trec", "weak_hausa"):
        votes, truth, k = load(name)
        labels = Rules(torch.from_numpy(votes), k)
        found = aggregate(labels.with_own_channels()).posterior.argmax(dim=1).numpy()
        texts = pandas.read_parquet(folder(name) / f"{name}.parquet")
        column = next(c for c in texts.columns if c not in ("split", "label", "weak_labels"))
        features = text_features(texts[column].astype(str).tolist())
        p = cross_fitted(features, found, k, 0, penalty=3e-3)
        wrong = labels.votes.numpy() != truth[labels.record_instances.numpy()]
        ways = {"votes alone": None, "beside a model of them": np.log(p.clip(1e-12))}
        table.add(name, wrong, {way: suspects(x, labels)["prob_wrong"].to_numpy() for way, x in ways.items()})
    return table.markdown()


def annotators() -> str:
    """How often intervals of annotators' accuracy hold the share of their votes that is right."""
    from crowd import load

    lines = ["| crowd | annotators | interval | holds | mean width | mean error |", "|---" * 6 + "|"]
    for name in (*VOTES, "sentiment_500"):
        item, who, vote, truth, k = load(name)
        votes = Crowd(*map(torch.from_numpy, (item, who, vote)), k, n_items=len(truth))
        fitted = aggregate(votes)
        judged = judge_annotators(fitted.labels)
        gold = truth[item] >= 0
        count, known = np.bincount(who), np.bincount(who[gold], minlength=len(judged.names))
        right = np.bincount(who[gold], (vote == truth[item])[gold], minlength=len(judged.names))
        seen = known >= 10
        share = right[seen] / known[seen]
        channel = fitted.channels[0]
        plain = [channel.accuracy(fitted.prior), *channel.accuracy_interval(fitted.prior)]
        ways = {
            "of the channel": [t.numpy()[seen] for t in plain],
            "judge_annotators": [t[seen] for t in (judged.accuracy, judged.accuracy_low, judged.accuracy_high)],
        }
        for way, (mean, low, high) in ways.items():
            # where few of the votes are on items with gold, their share strays from that of all votes
            stray = 1.96 * np.sqrt((1 - known[seen] / count[seen]) * mean * (1 - mean) / known[seen])
            holds = (share >= mean - np.hypot(mean - low, stray)) & (share <= mean + np.hypot(high - mean, stray))
            cells = f"{holds.mean():.2f} | {(high - low).mean():.3f} | {(mean - share).mean():+.3f}"
            lines.append(f"| {name} | {seen.sum()} | {way} | {cells} |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def numbers() -> str:
    """Numbers of which some are those of other rows; means of models that were cross-fitted on them."""
    import pandas
    from sklearn.datasets import load_breast_cancer, load_diabetes
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import cross_val_predict

    abalone = pandas.read_parquet(folder("abalone") / "abalone.parquet")
    rings = next(c for c in abalone.columns if "ring" in c.lower())
    diabetes, cells = load_diabetes(), load_breast_cancer().data
    others = np.delete(cells, [4, 14, 24], axis=1)
    sets = {
        "abalone": (
            pandas.get_dummies(abalone.drop(columns=[rings])).to_numpy(float),
            abalone[rings].to_numpy(float),
            HistGradientBoostingRegressor(max_iter=60, random_state=0),
        ),
        "diabetes": (diabetes.data, diabetes.target.astype(float), RidgeCV()),
        "smoothness of cells": (others / others.std(axis=0), 100 * cells[:, 4], RidgeCV()),
    }
    lines = ["| set | planted | expected | ECE | AUROC | AUROC of cleanlab |", "|---" * 6 + "|"]
    for name, (x, y, model) in sets.items():
        for share in (0.0, 0.02, 0.05, 0.1, 0.2):
            found: dict[str, list[float]] = {}
            for seed in range(SEEDS):
                rng = np.random.default_rng(seed)
                given = np.where(rng.random(len(y)) < share, rng.permutation(y), y)
                wrong = given != y
                mean = cross_val_predict(model, x, given, cv=5)
                variance = np.full(len(y), np.var(given - mean))
                score = suspects((mean, variance), Value(torch.from_numpy(given)))["prob_wrong"].to_numpy()
                found.setdefault("planted", []).append(wrong.mean())
                found.setdefault("expected", []).append(score.mean())
                if not wrong.any():
                    found.setdefault("ece", []).append(score.mean())
                    continue
                got = scores(wrong, score)
                found.setdefault("ece", []).append(got["ece"])
                found.setdefault("auroc", []).append(got["auroc"])
                if HAS_PEER:
                    from cleanlab.regression.rank import get_label_quality_scores

                    quality = get_label_quality_scores(given, mean)
                    found.setdefault("peer", []).append(float(roc_auc_score(wrong, -quality)))
            columns = [_cell(found[key]) if key in found else "" for key in ("expected", "ece", "auroc", "peer")]
            lines.append(f"| {name} | {np.mean(found['planted']):.3f} | " + " | ".join(columns) + " |")
            print(lines[-1], flush=True)
    return "\n".join(lines) + "\n\n" + planted_numbers()


def planted_numbers() -> str:
    """How many of 1000 numbers are expected to be wrong, by how residuals look, sort of error and number planted."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import cross_val_predict

    counts = (0, 1, 10, 20, 50, 100, 200)
    heads = " | ".join(f"{c} wrong" for c in counts)
    lines = [f"| residuals | wrong numbers | {heads} | AUROC of 50 | of cleanlab |", "|---" * (len(counts) + 4) + "|"]
    for shape in ("normal", "Student t, 4", "spread follows"):
        for sort in ("of other rows", "ten times", "3 sd off"):
            expected = np.zeros((len(counts), SEEDS))
            found: dict[str, list[float]] = {"ours": [], "peer": []}
            for at, planted in enumerate(counts):
                for seed in range(SEEDS):
                    rng = np.random.default_rng([seed, at])
                    x = rng.normal(size=(1000, 5))
                    mean = x @ np.array([1, 2, 0, 0, 1.0])
                    noise = rng.standard_t(4, 1000) / 2**0.5 if shape == "Student t, 4" else rng.normal(size=1000)
                    noise = noise * np.exp(0.25 * mean - 0.19) if shape == "spread follows" else noise
                    y = 3 + mean + 0.8 * noise
                    chosen = rng.permutation(1000) < planted
                    off = 3 * y.std() * rng.choice([-1, 1], 1000)
                    other = {"of other rows": rng.permutation(y), "ten times": 10 * y, "3 sd off": y + off}[sort]
                    given = np.where(chosen, other, y)
                    fitted = cross_val_predict(RidgeCV(), x, given, cv=5)
                    belief = fitted, np.full(1000, np.var(given - fitted))
                    score = suspects(belief, Value(torch.from_numpy(given)))["prob_wrong"].to_numpy()
                    expected[at, seed] = score.sum()
                    if planted == 50:
                        found["ours"].append(float(roc_auc_score(given != y, score)))
                        if HAS_PEER:
                            from cleanlab.regression.rank import get_label_quality_scores

                            quality = get_label_quality_scores(given, fitted)
                            found["peer"].append(float(roc_auc_score(given != y, -quality)))
            cells = [f"{row.mean():.1f}" for row in expected]
            cells += [_cell(found[key]) if found[key] else "" for key in ("ours", "peer")]
            lines.append(f"| {shape} | {sort} | " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def tags() -> str:
    from scipy.sparse import csr_matrix

    table = Table()
    for name in ("ml_scene", "ml_emotions", "ml_yeast"):
        got = np.load(folder(name) / f"{name}.npz", allow_pickle=True)
        parts = (np.ones(len(got["Y_indices"])), got["Y_indices"], got["Y_indptr"])
        truth = csr_matrix(parts, shape=tuple(got["Y_shape"])).toarray().astype(int)
        x = got["X"].astype(float)
        x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)
        for seed in range(SEEDS):
            rng = np.random.default_rng(seed)
            rate = rng.uniform(0.02, 0.2, size=truth.shape[1])
            wrong = rng.random(truth.shape) < rate
            given = np.where(wrong, 1 - truth, truth)
            p = cross_fitted(x, given, truth.shape[1], seed, penalty=3e-3).clip(1e-9, 1 - 1e-9)
            log_probs = np.log(np.stack([1 - p, p], axis=2)).reshape(-1, 2)
            found = suspects(log_probs, Tags(torch.from_numpy(given)))["prob_wrong"].to_numpy()
            by_way = {"anygrain": found}
            if HAS_PEER:
                from cleanlab.internal.multilabel_scorer import MultilabelScorer

                quality = MultilabelScorer().get_class_label_quality_scores(given, p)
                by_way["cleanlab multilabel self_confidence"] = 1 - quality.reshape(-1)
            table.add(name, wrong.reshape(-1), by_way)
    return table.markdown()


def tokens() -> str:
    """Words of abstracts that lie in a name of a disease, or not; whole names are missed, and words are marked."""
    import re

    import pandas
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import CountVectorizer

    table = Table()
    documents = pandas.read_parquet(folder("ncbi_disease") / "documents.parquet").iloc[:400]
    mentions = pandas.read_parquet(folder("ncbi_disease") / "mentions.parquet")
    spans = {pmid: part[["start", "end"]].to_numpy() for pmid, part in mentions.groupby("pmid")}
    column = "title" if "text" not in documents.columns else "text"
    words: list[str] = []
    row, inside, name = [], [], []
    names = 0
    for at, (pmid, title, more) in enumerate(
        zip(documents.pmid, documents[column], documents.iloc[:, -1], strict=True)
    ):
        text = title if column == "text" else f"{title} {more}"
        for token in re.finditer(r"\w+|[^\w\s]", text):
            hit = [i for i, (a, b) in enumerate(spans.get(pmid, [])) if token.start() < b and token.end() > a]
            words.append(token.group().lower())
            row.append(at)
            inside.append(int(bool(hit)))
            name.append(names + hit[0] if hit else -1)
        names += len(spans.get(pmid, []))
    row, truth, name = np.array(row), np.array(inside), np.array(name)
    around = [["", "", *words][i : i + 1][0] for i in range(len(words))]
    near = {"w": words, "l": ["", *words[:-1]], "r": [*words[1:], ""], "ll": around, "s": [w[-4:] for w in words]}
    counted = hstack(
        [
            CountVectorizer(analyzer=lambda w: [w], min_df=3, max_features=3000, binary=True).fit_transform(v)
            for v in near.values()
        ]
    ).tocsr()
    from sklearn.linear_model import LogisticRegression

    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        missed = rng.random(names + 1) < 0.2
        given = np.where((truth == 1) & missed[name], 0, truth)
        given = np.where((truth == 0) & (rng.random(len(truth)) < 0.01), 1, given)
        fold = rng.permutation(int(row.max()) + 1)[row] % 5
        p = np.zeros(len(row))
        for f in range(5):
            model = LogisticRegression(C=1.0, solver="liblinear").fit(counted[fold != f], given[fold != f])
            p[fold == f] = model.predict_proba(counted[fold == f])[:, 1]
        p = np.stack([1 - p, p], axis=1).clip(1e-9)
        labels = Exact(torch.from_numpy(given), 2, rows=torch.from_numpy(row))
        by_way = {"anygrain": suspects(np.log(p / p.sum(axis=1, keepdims=True)), labels)["prob_wrong"].to_numpy()}
        if HAS_PEER:
            from cleanlab.token_classification.rank import get_label_quality_scores

            ends = np.flatnonzero(np.diff(row)) + 1
            lists = [part.tolist() for part in np.split(given, ends)]
            _, each = get_label_quality_scores(lists, np.split(p, ends))
            by_way["cleanlab token self_confidence"] = 1 - np.concatenate([np.asarray(e) for e in each])
        table.add("ncbi_disease words", given != truth, by_way)
    return table.markdown()


def noisy_probs(n: int, k: int, noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of a fairly good classifier, labels of which some are one of the next three classes, the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(k, size=n)
    flip = rng.random(n) < noise
    given = np.where(flip, (truth + rng.integers(1, 4, size=n)) % k, truth)
    logits = rng.normal(size=(n, k))
    logits[np.arange(n), truth] += rng.normal(5.0, 2.0, size=n)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True), given, truth


def timed() -> str:
    p, given, truth = noisy_probs(100_000, 100)
    log_probs = np.log(p)
    ways: dict[str, Callable[[], np.ndarray]] = {"anygrain suspects": lambda: suspects(log_probs, given)["prob_wrong"]}
    if HAS_PEER:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores

        ways["cleanlab find_label_issues"] = lambda: find_label_issues(
            given, p, n_jobs=1, return_indices_ranked_by="self_confidence"
        )
        for rule in RULES:
            ways[f"cleanlab quality, {rule}"] = lambda r=rule: 1 - get_label_quality_scores(given, p, method=r)
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(7):
        for way, run in ways.items():
            start = time.process_time()
            run()
            spent[way].append(time.process_time() - start)
    lines = ["| 100,000 x 100 | CPU s, median (least) | AUROC | average precision |", "|---" * 4 + "|"]
    for way, run in ways.items():
        cells = "a list of issues | "
        if "find" not in way:
            got = scores(given != truth, np.asarray(run()))
            cells = f"{got['auroc']:.4f} | {got['ap']:.4f}"
        lines.append(f"| {way} | {np.median(spent[way]):.3f} ({min(spent[way]):.3f}) | {cells} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


REMARKS = {
    "single": (
        "Finding wrong labels",
        "± is the half width of a 95 % interval over three seeds. label_errors: an item is wrong where fewer than "
        "three of five workers confirm the given label; only those *asked* (chosen by the peer's own method) were "
        "looked at, and in *all* the others count as right. ECE and log loss take the peer's 1 - quality for a "
        "probability, which it does not claim to be.",
    ),
    "votes": (
        "Finding wrong votes",
        "Every vote is judged. Without features the peer, which needs probabilities, has the class shares; ours has "
        "the votes alone. With features both have softmax regression cross-fitted on the majority.",
    ),
    "rules": (
        "Finding wrong votes of rules",
        "The model is softmax regression on the words, cross-fitted on what the rules say together. Rules that see the "
        "features are judged by the mean of what they say alone and of its product with the model.",
    ),
    "annotators": (
        "Intervals of annotators' accuracy",
        "Annotators with ten votes or more on items with gold. 95 % intervals; holds: share of annotators whose share "
        "of right votes lies inside, chance allowed for where gold covers a part of their votes. The error is that of "
        "the mean. Shares of items that all mistake are those of `anygrain.audit.accuracies`, which were found on "
        "these crowds together.",
    ),
    "numbers": (
        "Finding wrong numbers",
        "A share of the numbers is drawn again from all of them. Gradient boosting (abalone) or ridge regression, "
        "cross-fitted on the numbers as they are; the variance given is that of the residuals. Expected: mean "
        "probability of being wrong. ± is the half width of a 95 % interval over three seeds. Second table: how "
        "many of 1000 simulated numbers are expected to be wrong, ridge regression cross-fitted on them.",
    ),
    "tags": (
        "Finding wrong tags",
        "Entries are flipped at a rate of its own for each tag, 2 to 20 %. Softmax regression per tag, cross-fitted.",
    ),
    "tokens": (
        "Finding wrong tokens",
        "A fifth of the names of diseases is left out, and one other word in a hundred is marked. Logistic regression "
        "on the word and its neighbours, folds of whole abstracts.",
    ),
    "time": ("Finding wrong labels, time", "One thread, medians of seven runs in turn."),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(REMARKS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    skipped = "" if HAS_PEER else "\n\ncleanlab skipped: `pip install --no-deps cleanlab termcolor tqdm` brings it."
    runs = {
        "single": single,
        "votes": votes,
        "rules": rules,
        "annotators": annotators,
        "numbers": numbers,
        "tags": tags,
        "tokens": tokens,
        "time": timed,
    }
    for name in given.only.split(","):
        if name != "time" and "ANYGRAIN_DATA" not in os.environ:
            print(f"{name} left out: ANYGRAIN_DATA is not set.")
            continue
        title, remark = REMARKS[name]
        write_section(f"label_errors_{name}", f"## {title}\n\n{runs[name]()}\n\n{remark}{skipped}")


if __name__ == "__main__":
    main()
