"""Texts through a pretrained transformer in a folder, trained with the head: all, its last layers, or small changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from anygrain.encoders.text_noise import TokenNoise
from anygrain.encoders.trainable import Arrays, Augmentation, InMemory, Inputs, TrainableEncoder, Training, seeded
from anygrain.encoders.words import texts_in
from anygrain.labels import LabelError

Tune = Literal["full", "last", "lora", "none"]
Pooling = Literal["mean", "first"]
SHARES = {"full": 0.02, "last": 0.2, "lora": 0.3}
MOST = 256  # rows at once on a CPU
TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)


class HuggingFace(TrainableEncoder):
    r"""A Hugging Face encoder from a local folder, its last states pooled (`pip install 'anygrain[text]'`).

    .. math:: z = \mathrm{norm}\Big(\frac{1}{L} \sum_l h_l\Big) \quad\text{or}\quad z = \mathrm{norm}(h_1), \quad
        W \leftarrow W + \frac{\alpha}{r} B A \text{ where low-rank changes are trained}

    The folder holds config.json, a tokenizer and weights as safetensors; nothing is downloaded, no pickle and no code
    of the folder is run. A model that is saved holds what was trained: all of it with tune="full", which then needs the
    folder no more, the last layers with tune="last", A and B with tune="lora", nothing with tune="none"; these three
    read the folder again and refuse other weights than those that they were trained on.

    Args:
        folder: where the pretrained encoder is.
        tune: what is trained.
        pooling: "mean" over the tokens, or the "first" one (CLS).
        longest: tokens of a text that are read, the first ones.
        share: rate of the pretrained weights as a share of the head's, .02 for "full", .2 for "last" and .3 for "lora"
            if None.
        decay: factor of the rate per layer down from the last, of tune="full".
        rank: r of the low-rank changes.  alpha: their factor is alpha / r.
        last: how many layers are trained by tune="last": about half the time of "full".
        tokenizer: what its tokenizer.json says; read from the folder if None.
        padding: the token that fills short rows; read from the folder if None.
        network: its config.json; read from the folder if None.
        fingerprint: hash of the weights in the folder; taken if None.

    Raises:
        LabelError: no such folder, no weights, weights only as a pickle, no tokenizer, weights that do not fit.

    Source: Hu and others, LoRA: Low-Rank Adaptation of Large Language Models, 2021; Howard and Ruder, Universal
    Language Model Fine-tuning, 2018 (rates by layer).
    """

    training_defaults = Training(learning_rate=1e-3, batch_size=32, steps=1000, weight_decay=0.01)
    has_pretrained = True

    def __init__(
        self,
        folder: str | Path,
        tune: Tune = "full",
        pooling: Pooling = "mean",
        longest: int = 128,
        share: float | None = None,
        decay: float = 1.0,
        rank: int = 8,
        alpha: int = 16,
        last: int = 2,
        tokenizer: str | None = None,
        padding: int | None = None,
        network: dict[str, Any] | None = None,
        fingerprint: str | None = None,
    ) -> None:
        super().__init__()
        for name, value, known in (("tune", tune, get_args(Tune)), ("pooling", pooling, get_args(Pooling))):
            if value not in known:
                raise LabelError(f'{name} is "{value}"; expected {", ".join(known[:-1])} or {known[-1]}')
        self.folder, self.tune, self.pooling, self.longest = str(folder), tune, pooling, longest
        self.share, self.decay, self.rank, self.alpha, self.last = share, decay, rank, alpha, last
        self.tokenizer, self.padding, self.network, self.fingerprint = tokenizer, padding, network, fingerprint
        self.register_load_state_dict_post_hook(_without_frozen)  # type: ignore[no-untyped-call]

    def config(self) -> dict[str, Any]:
        whole = self.tune == "full"  # the folder is not needed again
        return {
            "folder": self.folder,
            "tune": self.tune,
            "pooling": self.pooling,
            "longest": self.longest,
            "share": self.share,
            "decay": self.decay,
            "rank": self.rank,
            "alpha": self.alpha,
            "last": self.last,
            "tokenizer": self.tokenizer if whole else None,
            "padding": self.padding if whole else None,
            "network": self.network if whole else None,
            "fingerprint": None if whole else self.fingerprint,
        }

    @property
    def feature_dim(self) -> int:  # type: ignore[override]
        config = self.backbone.config
        return int(getattr(config, "hidden_size", None) or config.d_model)

    def learn(self, data: Any, seed: int = 0) -> HuggingFace:
        texts_in(data)
        self.network = self.fingerprint = None
        with seeded(seed):
            self._from_folder()
        return self

    def build(self) -> None:
        if self.network is None:
            self._from_folder()
            return
        transformers = _transformers(self.folder)
        config = transformers.AutoConfig.for_model(**self.network)
        self._hold(transformers.AutoModel.from_config(config))

    def _from_folder(self) -> None:
        """The pretrained network, its tokenizer and its fingerprint."""
        from safetensors import SafetensorError

        folder = Path(self.folder)
        if self.fingerprint is not None and not folder.is_dir():
            raise LabelError(
                f"the model was trained on the encoder in {folder}, which is not there. Put it back, or write where "
                'it lies now to "folder" in config.json of the model'
            )
        _check_folder(folder)
        transformers = _transformers(self.folder)
        found = fingerprint_of(folder)
        if self.fingerprint not in (None, found):
            raise LabelError(f"{folder} holds other weights than those that the model was trained on")
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            with _quiet(transformers):
                network, about = transformers.AutoModel.from_pretrained(
                    folder, use_safetensors=True, output_loading_info=True, **options
                )
                tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise LabelError(f"{folder} cannot be read: {str(error).strip().splitlines()[0]}") from error
        lost = sorted(name for name in about["missing_keys"] if "pooler" not in name)
        if lost:
            raise LabelError(
                f"{folder} has no weights for {lost[0]}{_more(len(lost))}; expected those of a whole encoder"
            )
        if not hasattr(tokenizer, "backend_tokenizer"):
            raise LabelError(f"{folder} has no tokenizer.json. Save its tokenizer as a fast one")
        self.tokenizer = tokenizer.backend_tokenizer.to_str()
        self.padding = int(tokenizer.pad_token_id or 0)
        self.fingerprint, self.network = found, json.loads(network.config.to_json_string(use_diff=False))
        self._hold(network.float())

    def _hold(self, network: Any) -> None:
        """Take a network and say which of its parameters are trained."""
        network = network.get_encoder() if network.config.is_encoder_decoder else network
        if getattr(network, "pooler", None) is not None:
            network.pooler = None  # its output is not used, so it would not be trained
        network.requires_grad_(self.tune == "full")
        if self.tune == "last":
            for layer in _layers(network)[-self.last :]:
                layer.requires_grad_(True)
        if self.tune == "lora":
            try:
                from peft import LoraConfig, inject_adapter_in_model
            except ImportError as error:
                raise LabelError('tune="lora" needs peft: pip install "anygrain[text]"') from error
            low = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules="all-linear")
            network = inject_adapter_in_model(low, network)
        self.backbone = network

    def train(self, mode: bool = True) -> HuggingFace:
        super().train(mode and self.tune != "none")
        return self

    def state_dict(self, *args: Any, **how: Any) -> dict[str, Any]:  # type: ignore[override]
        """What was trained; the rest stands in the folder."""
        state: dict[str, Any] = super().state_dict(*args, **how)
        prefix = how.get("prefix", "")
        for name in self._frozen():
            state.pop(prefix + name, None)
        return state

    def _frozen(self) -> list[str]:
        """Names of the tensors that come from the folder."""
        if self.tune == "full":
            return []
        own = dict(self.named_parameters())
        return [name for name in super().state_dict() if name not in own or not own[name].requires_grad]

    def learning_rates(self, rate: float) -> list[dict[str, Any]]:
        """A share of the rate, for tune="full" times `decay` per layer below the last."""
        if self.tune == "none":
            return []
        share = SHARES[self.tune] if self.share is None else self.share
        layers = _layers(self.backbone)
        depth = {id(p): len(layers) - 1 - at for at, layer in enumerate(layers) for p in layer.parameters()}
        groups: dict[int, list[nn.Parameter]] = {}
        for name, p in self.backbone.named_parameters():
            if p.requires_grad:
                groups.setdefault(depth.get(id(p), len(layers) if "embed" in name else 0), []).append(p)
        decay = self.decay if self.tune == "full" else 1.0
        return [{"params": group, "lr": rate * share * decay**d} for d, group in sorted(groups.items())]

    def inputs(self, data: Any) -> Inputs:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self.tokenizer or "")
        tokenizer.enable_truncation(self.longest)
        tokenizer.no_padding()
        found = tokenizer.encode_batch([text or "" for text in texts_in(data)])
        rows = [row.ids or [self.padding or 0] for row in found]
        lengths = torch.tensor([len(row) for row in rows])
        filled = torch.arange(int(lengths.max())) < lengths[:, None]
        tokens = torch.full(filled.shape, self.padding or 0, dtype=torch.int32)
        tokens[filled] = torch.tensor([t for row in rows for t in row], dtype=torch.int32)
        return InMemory(tokens=tokens, filled=filled)

    def augmentation(self) -> Augmentation:
        return TokenNoise()

    def encode(self, arrays: Arrays) -> Tensor:
        """Features (B, D) of "tokens" (B, L) and where they are "filled", bool (B, L).

        On a CPU rows of like length go together, so that little is spent on padding; not where the gradients of all
        weights, which are larger than what rows need, would be added up once per part.
        """
        tokens, filled = arrays["tokens"].long(), arrays["filled"]
        lengths = 1 + (filled * torch.arange(filled.shape[1], device=filled.device)).amax(dim=1)
        order = lengths.argsort(stable=True)
        whole = order.device.type != "cpu" or (self.tune == "full" and torch.is_grad_enabled())
        parts = order.split(len(order) if whole else min(MOST, max(8, -(-len(order) // 4))))
        found = torch.cat([self._pooled(tokens, filled, rows, int(lengths[rows[-1]])) for rows in parts])
        return functional.layer_norm(found[order.argsort()], found.shape[1:])

    def _pooled(self, tokens: Tensor, filled: Tensor, rows: Tensor, longest: int) -> Tensor:
        tokens, filled = tokens[rows, :longest], filled[rows, :longest]
        states = self.backbone(input_ids=tokens, attention_mask=filled.long()).last_hidden_state
        if self.pooling == "first":
            first: Tensor = states[:, 0]
            return first
        mean: Tensor = (states * filled[..., None]).sum(dim=1) / filled.sum(dim=1, keepdim=True)
        return mean


def _transformers(what: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise LabelError(f'the encoder in {what} needs transformers: pip install "anygrain[text]"') from error
    return transformers


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """What transformers writes to the screen is left out inside the block."""
    logging = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _check_folder(folder: Path) -> None:
    """Raises LabelError for a folder that is no pretrained encoder."""
    if not folder.is_dir():
        raise LabelError(
            f"{folder} is not there. Expected a folder with config.json, a tokenizer and model.safetensors"
        )
    if not (folder / "config.json").exists():
        raise LabelError(f"{folder} has no config.json. Expected the folder of a Hugging Face encoder")
    if not any(folder.glob("*.safetensors")):
        if any(folder.glob("*.bin")):
            raise LabelError(f"{folder} holds its weights as a pickle, which is never opened. Convert to safetensors")
        raise LabelError(f"{folder} has no weights. Expected model.safetensors")
    if not any((folder / name).exists() for name in TOKENIZERS):
        raise LabelError(f"{folder} has no tokenizer. Expected tokenizer.json")


def fingerprint_of(folder: Path) -> str:
    """Hash of the weights in a folder."""
    found = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()


def _layers(network: nn.Module) -> list[nn.Module]:
    """The blocks of a network: its longest list of modules."""
    lists = [list(module) for module in network.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])


def _without_frozen(encoder: nn.Module, keys: Any) -> None:
    """What stands in the folder is not missed on loading."""
    assert isinstance(encoder, HuggingFace)
    frozen = tuple(encoder._frozen())
    keys.missing_keys[:] = [key for key in keys.missing_keys if not key.endswith(frozen)]


def _more(n: int) -> str:
    return f" and {n - 1} more" if n > 1 else ""
