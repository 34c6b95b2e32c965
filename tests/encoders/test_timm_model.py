"""Networks of timm: what they see, and what is said where timm is missing or does not load."""

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

from anygrain.encoders import Timm, encoder_from
from anygrain.encoders.timm_model import without_batch_statistics
from anygrain.labels import LabelError

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
EVERY = torch.arange(4)


def timm():
    """The package, where it loads: a torchvision of another torch stops it."""
    return pytest.importorskip("timm", exc_type=ImportError)


def test_the_line_where_timm_is_missing_or_does_not_load(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(LabelError, match=r'need timm: pip install "anygrain\[vision\]"'):
        Timm("resnet18").learn(IMAGES)
    monkeypatch.delitem(sys.modules, "timm")
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist\\nmore')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        LabelError, match=r"does not load: operator torchvision::nms does not exist; anygrain check"
    ) as e:
        Timm("resnet18").learn(IMAGES)
    assert "\n" not in str(e.value)


def test_batch_normalisation_becomes_group_normalisation():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()))
    with torch.no_grad():
        network[1][0].weight.zero_()
    changed = without_batch_statistics(network)
    assert isinstance(changed[1][0], nn.GroupNorm)
    assert not changed[1][0].weight.any()  # a block that started as the identity still does
    image = torch.rand(4, 3, 9, 9)
    assert torch.allclose(changed(image)[:1], changed(image[:1]), atol=1e-6)


def test_a_network_by_name():
    timm()
    encoder = Timm("resnet18").learn(IMAGES)
    assert torch.allclose(encoder(IMAGES).square().mean(dim=1), torch.ones(4), atol=1e-2)
    again = encoder_from("timm", json.loads(json.dumps(encoder.config())), encoder.state_dict())
    assert torch.equal(again(IMAGES), encoder(IMAGES))
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in encoder.modules())
    with pytest.raises(LabelError, match=r'no network "resnt18"\. Did you mean "resnet18"'):
        Timm("resnt18").learn(IMAGES)
    with pytest.raises(LabelError, match="pass pretrained=True to download it"):
        Timm("hf-hub:user/name").learn(IMAGES)


def test_a_folder_with_weights(tmp_path):
    from safetensors.torch import save_file

    network = timm().create_model("resnet18", pretrained=False, num_classes=7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
    expects = {"input_size": [3, 32, 32], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}
    expects |= {"classifier": "fc", "first_conv": "conv1", "num_classes": 7}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": expects}))
    with pytest.raises(LabelError, match=r"has no model.safetensors"):
        Timm(str(tmp_path)).learn(IMAGES)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, tmp_path / "model.safetensors")
    encoder = Timm(str(tmp_path)).learn(IMAGES)
    network.reset_classifier(0)
    ready = encoder.standardised(encoder.inputs(IMAGES)[EVERY])
    assert torch.allclose(
        ready, (torch.from_numpy(IMAGES) / 255 - torch.tensor([0.1, 0.2, 0.3])).permute(0, 3, 1, 2) * 2
    )
    with torch.no_grad():
        assert torch.allclose(encoder(IMAGES), nn.functional.layer_norm(network.eval()(ready), (512,)), atol=1e-5)
    encoder.train()
    some = encoder.inputs(IMAGES)[EVERY]
    part = {"image": some["image"][:2]}
    assert torch.allclose(encoder.encode(some)[:2], encoder.encode(part), atol=1e-5)
    (tmp_path / "model.safetensors").unlink()
    again = encoder_from("timm", json.loads(json.dumps(encoder.config())), encoder.state_dict())
    assert torch.equal(again(IMAGES), encoder(IMAGES))
