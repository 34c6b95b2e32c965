"""Find classes by a method that is chosen by name, or for the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted

from anygrain.discover.discoverer import Callback
from anygrain.discover.methods import method
from anygrain.discover.task import Number
from anygrain.encoders.encoder import Encoder


class Discover(ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Finds finer classes inside coarse ones, and new classes beside known ones.

    ```python
    found = Discover(seed=0).fit(texts, Coarse(department, torch.eye(5)), n_classes=None)
    found.labels_, found.taxonomy_, found.n_classes_, found.predict(new_texts)
    ```

    Known classes keep their indices and names; new ones follow. Every fitted attribute is that of the method, see
    `Discoverer`; `method_` is the fitted method itself.

    Args:
        method: "auto", which chooses by the data and says why, or a name in `anygrain.discover.methods.METHODS`.
        seed: where all that is random comes from.
        encoder: an `Encoder`, or None: chosen for the data.
        device: "auto" (a GPU if there is one), "cpu", "cuda", ...
        bootstrap: how many times the classes are looked for again in half of the rows, for `stability_`.
        settings: further settings of the method, by name.

    Raises:
        ValueError: a method that is not there, or a setting that it does not have.
    """

    def __init__(
        self,
        method: str = "auto",
        *,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.method, self.seed, self.encoder, self.device = method, seed, encoder, device
        self.bootstrap, self.settings = bootstrap, settings

    def fit(self, data: Any, labels: Any = None, n_classes: Number = None, *, callback: Callback | None = None) -> Self:
        """Find the classes of some rows; see `Discoverer.fit`."""
        of, settings = method(self.method), dict(self.settings or {})
        has = of._get_param_names()
        for name in settings:
            if name not in has:
                raise ValueError(f'the method "{self.method}" has no setting {name!r}; it has {", ".join(has)}')
        common = {name: getattr(self, name) for name in ("seed", "encoder", "device", "bootstrap")}
        self.method_ = of(**{**common, **settings}).fit(data, labels, n_classes, callback=callback)
        return self

    def predict(self, data: Any) -> np.ndarray:
        """The class (N,) of new rows, 0..K-1."""
        check_is_fitted(self, "method_")
        return self.method_.predict(data)

    def predict_proba(self, data: Any) -> np.ndarray:
        """Probabilities (N, K) of new rows."""
        check_is_fitted(self, "method_")
        return self.method_.predict_proba(data)

    def predict_log_proba(self, data: Any) -> np.ndarray:
        """Log-probabilities (N, K) of new rows."""
        check_is_fitted(self, "method_")
        return self.method_.predict_log_proba(data)

    def __getattr__(self, name: str) -> Any:
        if name.endswith("_") and not name.startswith("_") and "method_" in self.__dict__:
            return getattr(self.__dict__["method_"], name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}; fitted ones are there after fit")
