"""A pretrained sentence encoder, from a local folder or by name."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.encoders.encoder import Encoder
from anygrain.labels import LabelError


class Pretrained(Encoder):
    """Texts through a frozen sentence-transformers model (`pip install 'anygrain[text]'`).

    Embeddings are kept in a Parquet file per encoder, by a hash of the text, so that a text is embedded once.

    Args:
        model: a local folder or a name on the hub.
        cache: folder of the Parquet files; ANYGRAIN_CACHE or ~/.cache/anygrain when not given, "" for none.
        batch_size: texts at once.
    """

    def __init__(self, model: str, cache: str | None = None, batch_size: int = 64) -> None:
        super().__init__()
        self.model, self.cache, self.batch_size = str(model), cache, batch_size
        self._loaded: Any = None

    @property
    def feature_dim(self) -> int:  # type: ignore[override]
        return int(self._network().get_embedding_dimension())

    def config(self) -> dict[str, Any]:
        return {"model": self.model, "cache": self.cache, "batch_size": self.batch_size}

    def _network(self) -> Any:
        if self._loaded is None:
            try:
                from sentence_transformers import SentenceTransformer
            except ImportError as error:
                raise LabelError(
                    f'the encoder "{self.model}" needs sentence-transformers: pip install "anygrain[text]"'
                ) from error
            self._loaded = SentenceTransformer(self.model)
        return self._loaded

    def _file(self) -> Path | None:
        folder = self.cache if self.cache is not None else os.environ.get("ANYGRAIN_CACHE", "~/.cache/anygrain")
        if not folder:
            return None
        name = Path(self.model).name + "-" + hashlib.sha256(self.model.encode()).hexdigest()[:12]
        return Path(folder).expanduser() / "embeddings" / f"{name}.parquet"

    def forward(self, data: Any) -> Tensor:
        texts = ["" if t is None else str(t) for t in data]
        keys = [hashlib.sha256(t.encode()).hexdigest() for t in texts]
        known = self._read()
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if new:
            vectors = self._network().encode(
                list(new.values()), batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
            )
            known.update(zip(new, np.asarray(vectors, dtype=np.float32), strict=True))
            self._write(known)
        return torch.from_numpy(np.stack([known[key] for key in keys]))

    def _read(self) -> dict[str, np.ndarray]:
        import pyarrow.parquet as pq

        file = self._file()
        if file is None or not file.exists():
            return {}
        table = pq.read_table(file)
        flat = table["vector"].combine_chunks().flatten().to_numpy()
        return dict(zip(table["key"].to_pylist(), flat.reshape(len(table), -1), strict=True))

    def _write(self, known: dict[str, np.ndarray]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = self._file()
        if file is None:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        table = np.stack(list(known.values()))
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(table.ravel()), table.shape[1])
        unfinished = file.with_suffix(f".{os.getpid()}.tmp")
        pq.write_table(pa.table({"key": list(known), "vector": vectors}), unfinished)
        os.replace(unfinished, file)
