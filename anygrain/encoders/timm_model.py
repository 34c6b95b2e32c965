"""Image networks of timm, by name or from a local folder, trained with the head."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from anygrain.encoders.image import ImageEncoder, Unreadable, group_norm
from anygrain.encoders.images import moments
from anygrain.encoders.trainable import Training, seeded
from anygrain.labels import LabelError

WEIGHTS = "model.safetensors"


@dataclass
class _Source:
    """Where a network comes from: its name in timm, what its weights expect, and the file that they lie in."""

    architecture: str
    expects: dict[str, Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    file: str = ""


class Timm(ImageEncoder):
    """A network of timm without its last layer (`pip install 'anygrain[vision]'`); features of mean square 1.

    Nothing is downloaded unless `pretrained` asks for it. With weights that were trained before, batch normalisation
    keeps the statistics that come with them, and pixels are standardised as they expect it; without, group
    normalisation takes its place: either way a network never sees the batch.

    Args:
        model: a name that `timm.list_models()` gives, or a folder with config.json and model.safetensors.
        pretrained: whether to download the weights of a named model; "hf-hub:user/name" is one too.
        weights: a safetensors file with weights for a named model.
        size, unreadable, channels: see `ImageEncoder`. With weights, the size that they expect unless one is given.
        architecture, arguments, trained: what is built without weights on loading; learnt.

    Raises:
        LabelError: timm is missing or does not load, no such model, a folder without weights.
    """

    def __init__(
        self,
        model: str = "resnet18",
        pretrained: bool = False,
        weights: str = "",
        size: int | Sequence[int] | None = None,
        unreadable: Unreadable = "stop",
        channels: int | None = None,
        architecture: str = "",
        arguments: dict[str, Any] | None = None,
        trained: bool = False,
    ) -> None:
        super().__init__(size, unreadable, channels)
        self.model, self.pretrained, self.weights = str(model), pretrained, str(weights)
        self.architecture, self.arguments = architecture, dict(arguments or {})
        self.trained = trained or pretrained or bool(weights) or _is_path(self.model)
        self.has_pretrained = self.trained
        self.training_defaults = Training(learning_rate=2e-4 if self.trained else 1e-3)

    @property
    def feature_dim(self) -> int:  # type: ignore[override]
        return self._feature_dim

    def config(self) -> dict[str, Any]:
        built = {"architecture": self.architecture, "arguments": self.arguments, "trained": self.trained}
        return {
            "model": self.model,
            "pretrained": self.pretrained,
            "weights": self.weights,
            **super().config(),
            **built,
        }

    def learn(self, data: Any, seed: int = 0) -> Timm:
        source = self._source()
        self.architecture, self.arguments = source.architecture, source.arguments
        if self.size is None and self.trained:
            self.size = tuple(source.expects["input_size"][-2:])
        asked = self.size
        images, rows = self._looked_at(data, seed)
        assert self.size is not None
        if asked is None:  # networks of timm halve the side five times; some take whole patches alone
            whole = 32 if source.expects.get("fixed_input_size") else 1
            height, width = (max(32, whole * math.ceil(side / whole)) for side in self.size)
            self.size = (height, width)
        self.mean, deviation, self.edge = moments(images, rows)
        self.deviation = torch.where(deviation > 1 / 255, deviation, 1.0)
        if self.trained and self.channels in (1, 3):
            expected = torch.tensor([source.expects["mean"], source.expects["std"]])
            self.mean, self.deviation = expected if self.channels == 3 else expected.mean(dim=1, keepdim=True)
        with seeded(seed):
            self._build(source)
        return self

    def build(self) -> None:
        expects = _timm().get_pretrained_cfg(self.architecture)
        self._build(_Source(self.architecture, expects.to_dict(), self.arguments), load=False)

    def _source(self) -> _Source:
        timm = _timm()
        if _is_path(self.model):
            folder = Path(self.model)
            for name in ("config.json", WEIGHTS):
                if not (folder / name).is_file():
                    raise LabelError(f"{folder} has no {name}. Expected a folder of timm: config.json and {WEIGHTS}")
            said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if "architecture" not in said:
                raise LabelError(f"{folder}/config.json names no architecture; expected a network of timm")
            expects = _known(said["architecture"]).to_dict() | said.get("pretrained_cfg", said)
            return _Source(said["architecture"], expects, said.get("model_args") or {}, str(folder / WEIGHTS))
        if self.model.startswith("hf-hub:"):
            if not self.pretrained:
                raise LabelError(f'"{self.model}" lies on the hub; pass pretrained=True to download it')
            found, name, arguments = timm.models.load_model_config_from_hf(self.model.removeprefix("hf-hub:"))
            return _Source(name, _known(name).to_dict() | found, arguments or {})
        if self.weights and (not Path(self.weights).is_file() or Path(self.weights).suffix != ".safetensors"):
            raise LabelError(f"weights is {self.weights}; expected a file that ends in .safetensors")
        return _Source(self.model, _known(self.model).to_dict(), file=self.weights)

    def _build(self, source: _Source, *, load: bool = True) -> None:
        assert self.size is not None
        how: dict[str, Any] = {**source.arguments, "num_classes": 0, "in_chans": self.channels}
        if source.expects.get("fixed_input_size"):
            how["img_size"] = self.size
        if source.file:
            how["pretrained_cfg"] = {**source.expects, "file": source.file, "source": "timm"}
        name = self.model if self.pretrained and load else source.architecture
        try:
            network = _timm().create_model(name, pretrained=load and (self.pretrained or bool(source.file)), **how)
            network = nn.Sequential(network if self.trained else without_batch_statistics(network), nn.Flatten()).eval()
            with torch.no_grad():
                self._feature_dim = int(network(torch.zeros(1, self.channels or 3, *self.size)).shape[1])
        except Exception as error:  # whatever a network of timm says of sizes, weights or the hub
            fault = " ".join(str(error).split())[:200]
            raise LabelError(f'timm cannot build "{self.model}" for images of {self.size}: {fault}') from error
        self.network = network.append(nn.LayerNorm(self._feature_dim, elementwise_affine=False)).train()
        self.train(self.training)

    def train(self, mode: bool = True) -> Timm:
        """Training mode; batch normalisation stays as it was trained."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def without_batch_statistics(module: nn.Module) -> nn.Module:
    """The same network with group normalisation in the place of batch normalisation."""
    if isinstance(module, nn.BatchNorm2d):
        norm = group_norm(module.num_features)
        if module.affine:
            norm.weight, norm.bias = module.weight, module.bias
        after = [getattr(module, name) for name in ("drop", "act") if hasattr(module, name)]  # timm's has both inside
        return nn.Sequential(norm, *after) if after else norm
    for name, child in module.named_children():
        setattr(module, name, without_batch_statistics(child))
    return module


def _is_path(model: str) -> bool:
    return not model.startswith("hf-hub:") and (Path(model).is_dir() or "/" in model)


def _known(name: str) -> Any:
    """What timm knows of a network."""
    import difflib

    timm = _timm()
    plain = name.partition(".")[0]
    if not timm.is_model(plain):
        close = difflib.get_close_matches(plain, timm.list_models(), n=1)
        hint = f' Did you mean "{close[0]}"?' if close else ""
        raise LabelError(f'timm has no network "{name}".{hint}')
    tagged = timm.list_pretrained(f"{plain}.*")
    if "." in name and name not in tagged:
        raise LabelError(f'timm has no weights "{name}". Expected one of {", ".join(tagged)}')
    return timm.get_pretrained_cfg(name)


def _timm() -> Any:
    """The package timm.

    Raises:
        LabelError: it is missing, or does not load, most often for a torchvision of another torch.
    """
    try:
        import timm
    except Exception as error:  # a torchvision of another torch fails in many ways
        if isinstance(error, ModuleNotFoundError):
            raise LabelError(f'networks of timm need {error.name}: pip install "anygrain[vision]"') from error
        why = str(error).splitlines()[0]
        hint = "; anygrain check --fix prints what to install" if "torchvision" in str(error) else ""
        raise LabelError(f"timm is installed and does not load: {why}{hint}") from error
    return timm
