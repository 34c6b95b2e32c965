"""Run folders as `anygrain.data.run_folder` describes them, with numbers drawn at random."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from anygrain.metrics import wilson_interval

KEPT = ("row", "evidence", "wrong_labels", "suspect", "suspect_source", "suspect_value", "text", "map_x", "map_y")
SENTENCES = [
    "charged twice in march, please return the second payment",
    "the screen stays black after the update",
    "how do i change the address on my account",
    "my parcel has not moved for nine days",
    "the modem loses the line every evening at eight",
]


def share(rng: np.random.Generator, low: float, high: float, rows: int) -> dict:
    right = int(rng.binomial(rows, rng.uniform(low, high)))
    return {"rows": rows, "correct": right, "accuracy": right / rows, "interval": list(wilson_interval(right, rows))}


def bins(rng: np.random.Generator, rows: int) -> list[dict]:
    out = []
    for low in np.arange(2, 10) / 10:
        count = max(2, int(rows * low / 5))
        confidence = float(low + 0.05)
        right = int(rng.binomial(count, confidence))
        limits = list(wilson_interval(right, count))
        found = {"rows": count, "confidence": confidence, "accuracy": right / count, "interval": limits}
        out.append({"low": float(low), "high": float(low + 0.1), **found})
    return out


def write_run(
    folder: Path, *, parents: int = 8, children: int = 3, rows: int = 1200, annotators: int = 3, seed: int = 0
):
    """A finished run of `parents` x `children` classes; `parents=0` is a run without a taxonomy."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    names = [
        "card payment",
        "delivery",
        "hardware",
        "account",
        "travel",
        "meta & small talk",
        "home",
        "work <internal>",
    ]
    parent_names = [names[p % 8] + ("" if p < 8 else f" {p}") for p in range(parents)] or [None]
    classes = [
        [f"{p or 'class'} {c}: {'a rather long name' if c == 1 else 'kind'}" for c in range(children)]
        for p in parent_names
    ]
    flat = [c for group in classes for c in group]
    k = len(flat)
    truth = rng.integers(0, k, rows)
    places = rng.normal(size=(k, 2)) * 14 + rng.normal(size=(max(parents, 1), 2)).repeat(children, axis=0) * 40
    probability = rng.beta(6, 2, rows)
    suspect = rng.exponential(0.8, rows)
    labels = {
        "row": np.arange(rows).astype(str),
        "class": np.array(flat, dtype=object)[truth],
        "probability": probability,
        "entropy": -np.log(probability),
        "predicted": np.array(flat, dtype=object)[truth],
        "predicted_prob": probability,
        "evidence": -suspect,
        "wrong_labels": (suspect > 0.7).astype(np.int32),
        "suspect": suspect,
        "suspect_source": np.full(rows, "worker_1", dtype=object),
        "suspect_value": np.full(rows, flat[0], dtype=object),
        "exact": np.where(rng.random(rows) < 0.05, np.array(flat, dtype=object)[truth], None),
        "given": np.full(rows, "department=Billing", dtype=object),
        "text": np.array(SENTENCES, dtype=object)[np.arange(rows) % 5],
        "map_x": places[truth, 0] + rng.normal(size=rows) * 4,
        "map_y": places[truth, 1] + rng.normal(size=rows) * 4,
    }
    parquet.write_table(pa.table(labels), folder / "labels.parquet")
    metrics = {
        "format": "anygrain-run-1",
        "name": folder.name,
        "created": "2025-03-02T10:11:12+00:00",
        "seconds": 14.2,
        "stages": {"read": 0.4, "encode": 1.1, "fit": 12.0, "write": 0.7},
        "command": "anygrain fit tickets.toml --out runs/t1",
        "reload": 'anygrain.load("runs/t1").predict_proba(["screen stays black"])',
        "seed": 0,
        "versions": {
            "anygrain": "0.1.0",
            "python": "3.11.2",
            "torch": "2.13.0",
            "numpy": "2.4.6",
            "scikit-learn": "1.9.1",
        },
        "data": {
            "source": "/data/tickets.csv",
            "rows": rows,
            "classes": k,
            "rows_with_labels": rows,
            "text": ["text"],
            "columns": [],
            "features": 1,
            "encoder": "hashed tf-idf with SVD, 256 dimensions",
            "encoded": 256,
            "bags": None,
            "missing": 0,
        },
        "classes": flat,
        "evidence": [
            {
                "name": "department",
                "kind": "Coarse",
                "source": "tickets.csv",
                "columns": ["department"],
                "says": "the class lies under this parent",
                "labels": rows,
                "rows": rows,
                "of": rows,
                "values": parents,
                "simulated": False,
            },
            {
                "name": "workers",
                "kind": "Crowd",
                "source": "tickets.csv",
                "columns": [f"worker_{w + 1}" for w in range(min(annotators, 6))],
                "says": "votes of annotators, each with a confusion matrix of their own",
                "labels": 1371,
                "rows": 702,
                "of": rows,
                "values": k,
                "simulated": True,
            },
            {
                "name": "product",
                "kind": "Exact",
                "source": "tickets.csv",
                "columns": ["product"],
                "says": "the class is this",
                "labels": 60,
                "rows": 60,
                "of": rows,
                "values": k,
                "simulated": False,
            },
        ],
        "evaluation": {
            "rows": 60,
            "folds": 5,
            "method": "Each of 60 exact rows was scored by a model that did not see its exact label (5 folds).",
            "entries": [
                {
                    "key": "posterior",
                    "name": "features and the row's other labels",
                    "ours": True,
                    **share(rng, 0.8, 0.9, 60),
                    "log_loss": 0.61,
                    "ece": 0.04,
                },
                {
                    "key": "features",
                    "name": "features alone",
                    "ours": True,
                    **share(rng, 0.7, 0.8, 60),
                    "log_loss": 0.83,
                    "ece": 0.06,
                },
                {
                    "key": "exact_only",
                    "name": "trained on exact labels alone",
                    "ours": False,
                    **share(rng, 0.3, 0.5, 60),
                    "log_loss": 2.1,
                    "ece": 0.12,
                },
                {
                    "key": "labels",
                    "name": "the row's other labels, without features",
                    "ours": False,
                    **share(rng, 0.6, 0.7, 60),
                    "log_loss": 1.02,
                    "ece": 0.15,
                },
                {
                    "key": "labels:department",
                    "name": "department only",
                    "ours": False,
                    **share(rng, 0.3, 0.4, 60),
                    "log_loss": 2.1,
                    "ece": None,
                },
                {
                    "key": "majority",
                    "name": "always the most frequent class",
                    "ours": False,
                    **share(rng, 0.05, 0.1, 60),
                    "log_loss": None,
                    "ece": None,
                },
            ],
            "reliability": bins(rng, 60),
            "reliability_features": bins(rng, 60),
        },
        "held_out": {"evidence_per_row": -0.47, "rows": 240, "chance": -2.2},
        "conflicts": {
            "rows": 2,
            "mode": "soften",
            "examples": [{"row": "902", "problem": 'department "Billing" excludes product "modem" (parent "Hardware")'}]
            * 2,
            "file": "conflicts.csv",
        },
        "agreement": [
            {"first": a, "second": b, "agree": s.pop("correct"), "share": s.pop("accuracy"), **s}
            for a, b, s in [
                ("department", "workers", share(rng, 0.8, 0.9, 702)),
                ("workers", "department", share(rng, 0.8, 0.9, 702)),
                ("workers", "product", share(rng, 0.6, 0.8, 41)),
            ]
        ],
        "sources": [
            {
                "name": name,
                "part": part,
                "kind": kind,
                "labels": 400,
                "accuracy": (s := share(rng, 0.5, 0.95, 400))["accuracy"],
                "interval": s["interval"],
                "agreement": 0.8,
                "compared": 200,
                "suspects": 7,
            }
            for name, part, kind in [
                *[(f"worker_{w + 1}", "workers", "Crowd") for w in range(annotators)],
                ("department", "department", "Coarse"),
                ("product", "product", "Exact"),
            ]
        ],
        "confusion": [
            {
                "parent": parent,
                "classes": group,
                "matrix": (rng.poisson(2, (children, children)) + np.diag(rng.poisson(30, children))).tolist(),
                "rows": rows // max(parents, 1),
                "inside": 0.93,
            }
            for parent, group in zip(parent_names, classes, strict=True)
        ],
        "classes_table": [
            {"class": c, "expected": float(n), "exact": int(e), "labels": int(3 * n)}
            for c, n, e in zip(flat, rng.gamma(9, rows / k / 9, k), rng.poisson(60 / k, k), strict=True)
        ],
        "worst": [
            {
                "row": str(300 + i),
                "source": f"worker_{1 + i % 3}",
                "given": flat[i % k],
                "proposed": flat[(i + 1) % k],
                "probability": 0.97 - 0.01 * i,
                "wrong": float(1 - np.exp(0.15 * i - 6.4)),
                "suspect": 6.4 - 0.15 * i,
                "text": SENTENCES[i % 5] if i else "<script>alert('x')</script> & \"quoted\" text",
            }
            for i in range(20)
        ],
        "suspects": 41,
        "learner": {
            "chosen": "all evidence: on 60 exact labels held out, log-probability -0.143, without evidence -0.413",
            "temperature": 1.21,
            "rounds": 4,
            "exact_only_won": False,
        },
        "history": [
            {"step": "without 1", "track": "held out", "round": 1, "evidence": None, "held_out": None},
            *(
                {
                    "track": t,
                    "round": r,
                    "temperature": 1.2,
                    "evidence": None,
                    "held_out": -2.2 + g * (1 - 0.5**r) - 0.01 * r,
                }
                for t, g in (("head", 1.7), ("graph", 1.5))
                for r in range(1, 5)
            ),
            {"track": "final", "round": 1, "temperature": 1.1, "evidence": None, "held_out": -0.62},
        ],
        "warnings": ['Nothing tells apart the children of "work <internal>": class 1 and class 2.'],
        "notes": ["The votes of this example were drawn by Crowd.simulate."],
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "config.toml").write_text(
        '[data]\nsource = "/data/tickets.csv"\nid = "id"\ntext = "text"\n\n[learn]\nseed = 0\n'
    )
    return metrics


def write_tag_run(folder: Path, tags: int = 6, rows: int = 300, seed: int = 0) -> dict[str, Any]:
    """A run of tags, made of numbers drawn at random; its metrics."""
    rng = np.random.default_rng(seed)
    metrics = write_run(folder, parents=0, rows=rows)
    names = [f"tag <{t}> with a rather long name" if t == 1 else f"tag {t}" for t in range(tags)]
    on = rng.random((rows, tags)) < rng.uniform(0.05, 0.5, tags)
    probs = np.clip(0.7 * on + 0.3 * rng.random((rows, tags)), 0, 1)
    table = parquet.read_table(folder / "labels.parquet")
    kept = {name: table[name] for name in table.column_names if name in KEPT}
    lists = [[n for n, o in zip(names, row, strict=True) if o] for row in on]
    columns = {f"p_{n}": probs[:, t] for t, n in enumerate(names)}
    parquet.write_table(pa.table({**kept, "tags": lists, **columns}), folder / "labels.parquet")

    def entry(key: str, name: str, middle: float, *, ours: bool) -> dict[str, Any]:
        scores = ("map", "auc", "micro_f1", "macro_f1", "log_loss", "brier", "ece", "ranking_loss", "coverage")
        out = {"key": key, "name": name, "ours": ours, "rows": rows}
        out |= {score: float(rng.normal(middle, 0.02)) for score in scores}
        return out | {f"{s}_interval": [out[s] - 0.05, out[s] + 0.05] for s in ("micro_f1", "macro_f1", "log_loss")}

    levels = np.linspace(0.01, 0.99, 60)
    scores = ("average_precision", "auc", "precision", "recall", "f1", "brier", "log_loss", "ece", "log_loss_prior")
    count = on.sum(axis=0)
    together = (on.T.astype(float) @ on)[:40, :40]
    metrics |= {
        "space": "tags",
        "tags": names,
        "data": {**metrics["data"], "classes": tags},
        "evaluation": {
            "rows": rows,
            "known": rows * tags,
            "folds": 3,
            "threshold": 0.5,
            "method": "each row was scored by models that were not trained on it (3 parts)",
            "entries": [
                entry("features", "features alone", 0.6, ours=True),
                entry("prior", "each tag as often as it is", 0.2, ours=False),
            ],
            "reliability": bins(rng, rows),
            "precision_recall": {
                "threshold": levels.tolist(),
                "precision": (0.3 + 0.7 * levels).tolist(),
                "recall": (1 - levels**2).tolist(),
                "average_precision": 0.7,
            },
        },
        "tags_table": [
            {
                "tag": name,
                "on": int(count[t]),
                "off": int(rows - count[t]),
                "unknown": 0,
                "expected": float(probs[:, t].sum()),
                "predicted": int(count[t]),
                "share": float(count[t] / rows),
                "wrongly_on": 1,
                "wrongly_off": 2,
                **{score: (None if t == tags - 1 else float(rng.uniform(0.4, 0.9))) for score in scores},
            }
            for t, name in enumerate(names)
        ],
        "together": {"tags": names[:40], "matrix": together.tolist()},
        "agreement": [
            {"first": "ann", "second": "bob", "rows": 90, "agree": 80, "share": 0.889, "interval": [0.8, 0.94]}
            | {"on": 20, "share_on": 0.5}
        ],
        "worst": [
            {key: w[key] for key in ("row", "source", "wrong", "suspect", "text")}
            | {"tag": names[i % tags], "given": "has" if i % 2 else "lacks", "probability": 0.03, "image": None}
            for i, w in enumerate(metrics["worst"])
        ],
        "learner": {"chosen": "tags have one way to be learnt", "error": 0.01},
    }
    for name in ("confusion", "classes_table", "classes"):
        del metrics[name]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return metrics
