"""The audit of data rows under the column names of cleanlab, so that notebooks written for it keep working."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from anygrain.labels import Crowd

if TYPE_CHECKING:
    from anygrain.audit.auditing import Audit

#: outliers are flagged where they more probably do not belong than do
IN_DOUBT = 0.5


def cleanlab_columns(audit: Audit) -> dict[str, np.ndarray]:
    """Columns (rows,) of an audit whose rows are one instance each, or several.

    `is_label_issue`, `label_quality` and `label_score` (1 - the largest probability of a record of the row to be wrong,
    low is bad), `given_label` and `predicted_label` (where each row has one record, or votes), `sample_weight` (the
    same as the quality), and by issue `is_outlier_issue`, `outlier_score`, `is_near_duplicate_issue`,
    `near_duplicate_score`. For votes also `consensus_label`, `consensus_quality_score`, `annotator_agreement` and
    `num_annotations`.
    """
    rows, records = audit.rows(), audit.records()
    n = len(rows["row"])
    quality = 1 - rows["prob_wrong"]
    out: dict[str, np.ndarray] = {
        "is_label_issue": rows["prob_wrong"] > IN_DOUBT,
        "label_quality": quality,
        "label_score": quality,
    }
    about = records["row"] >= 0
    if len(records["row"]) == n and bool(about.all()) and len(np.unique(records["row"])) == n:
        place = np.argsort(records["row"], kind="stable")
        out["given_label"] = records["given"][place]
    if "class" in rows:
        out["predicted_label"] = rows["class"]
    out["sample_weight"] = quality
    out["is_outlier_issue"] = rows["outlier"] > IN_DOUBT
    out["outlier_score"] = 1 - rows["outlier"]
    d = audit.duplicates
    nearest = np.full(n, np.inf)
    np.minimum.at(nearest, d.first, d.distance)
    np.minimum.at(nearest, d.second, d.distance)
    out["is_near_duplicate_issue"] = np.isfinite(nearest)
    typical = float(np.median(audit.outliers.distance)) or 1.0
    out["near_duplicate_score"] = np.where(np.isfinite(nearest), np.tanh(nearest / typical), 1.0)
    if isinstance(audit.labels, Crowd) and "class" in rows:
        voted = audit.said
        agree = voted & (records["given"] == rows["class"][records["row"]])
        count = np.bincount(records["row"][voted], minlength=n)
        out["consensus_label"] = rows["class"]
        out["consensus_quality_score"] = rows["probability"]
        out["annotator_agreement"] = np.where(
            count > 0, np.bincount(records["row"][agree], minlength=n) / np.maximum(count, 1), np.nan
        )
        out["num_annotations"] = count
    return out
