"""Images: every form is read alike, files are read when asked for, networks do not see the batch."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from anygrain.encoders import Convolutional, ImageAugmentation, Residual, encoder_for, encoder_from
from anygrain.encoders.images import ArrayImages, ReadImages, as_fractions, is_image
from anygrain.labels import LabelError

Image = pytest.importorskip("PIL.Image")

GENERATOR = np.random.default_rng(0)
COLOUR = GENERATOR.integers(0, 256, (6, 12, 10, 3), dtype=np.uint8)
GREY = GENERATOR.integers(0, 256, (6, 12, 10), dtype=np.uint8)
EVERY = torch.arange(6)
SMALL = {"widths": (8, 16)}


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, format="PNG")
    return file.getvalue()


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    for at, array in enumerate(COLOUR):
        (tmp_path / f"{at}.png").write_bytes(png(array))
    return [str(tmp_path / f"{at}.png") for at in range(len(COLOUR))]


def of(encoder, data) -> torch.Tensor:
    return encoder.inputs(data)[EVERY]["image"]


# -- forms ------------------------------------------------------------------------------------------------------------


def test_every_form_of_the_same_images_is_the_same(files):
    encoder = Convolutional(**SMALL).learn(COLOUR)
    wanted = of(encoder, COLOUR)
    assert wanted.dtype == torch.uint8
    assert wanted.shape == (6, 3, 12, 10)
    assert torch.equal(wanted, torch.from_numpy(COLOUR).permute(0, 3, 1, 2))
    forms = {
        "channels first": COLOUR.transpose(0, 3, 1, 2),
        "tensor": torch.from_numpy(COLOUR),
        "whole numbers": COLOUR.astype(np.int64),
        "files": files,
        "paths": [Path(file) for file in files],
        "array of names": np.array(files),
        "bytes": [png(array) for array in COLOUR],
        "rows of a table": [{"bytes": png(array), "path": None} for array in COLOUR[:3]]
        + [{"bytes": None, "path": file} for file in files[3:]],
        "Pillow": [Image.fromarray(array) for array in COLOUR],
        "list of arrays": list(COLOUR),
    }
    for name, data in forms.items():
        assert is_image(data), name
        assert torch.equal(of(encoder, data), wanted), name
    assert torch.allclose(of(encoder, COLOUR / 255.0), wanted / 255.0, atol=1e-7)
    assert torch.allclose(encoder(COLOUR / 255.0), encoder(files), atol=1e-5)


def test_grey_images_have_one_channel_and_colour_is_brought_to_what_was_learnt(files):
    grey = Convolutional(**SMALL).learn(GREY)
    assert grey.channels == 1
    assert torch.equal(of(grey, GREY[..., None]), of(grey, GREY))
    assert torch.equal(of(grey, [png(array) for array in GREY]), of(grey, GREY))
    assert of(grey, files).shape == (6, 1, 12, 10)
    mixed = Convolutional(**SMALL).learn([png(GREY[0]), png(COLOUR[0])])
    assert mixed.channels == 3
    with pytest.raises(LabelError, match=r"have 3 channels; the model is for 1"):
        grey.inputs(COLOUR)


def test_thin_images_are_read_by_the_channels_that_were_learnt():
    wide = GENERATOR.integers(0, 256, (4, 3, 9, 2), dtype=np.uint8)  # 3 channels first, 2 pixels wide
    assert ArrayImages(wide, 3).array.shape == (4, 3, 9, 2)
    assert ArrayImages(wide).array.shape == (4, 2, 3, 9)


def test_an_encoder_is_chosen_for_images_and_not_for_other_data(files):
    assert isinstance(encoder_for(files), Convolutional)
    assert isinstance(encoder_for(GREY), Convolutional)
    import pandas as pd

    assert is_image(pd.Series(files))
    assert is_image([None, files[0]])
    others = [["a text", "one.png"], np.eye(3), [], [1.0, 2.0], "one.png", pd.DataFrame({"a": [1]}), [None], ["", None]]
    for other in others:
        assert not is_image(other)


def test_photographs_are_upright_and_on_white():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    turned = io.BytesIO()
    Image.fromarray(COLOUR[0]).save(turned, format="PNG", exif=exif)
    clear = np.concatenate([COLOUR[0], np.zeros((12, 10, 1), np.uint8)], axis=2)
    deep = GREY[0].astype(np.uint16) * 257
    encoder = Convolutional(size=(10, 12), channels=3, **SMALL).learn([turned.getvalue()])
    assert encoder.size == (10, 12)
    found = encoder.inputs([turned.getvalue()])[torch.tensor([0])]["image"][0]
    assert torch.equal(found, torch.from_numpy(np.rot90(COLOUR[0], -1).copy()).permute(2, 0, 1))
    white = Convolutional(**SMALL).learn(COLOUR).inputs([png(clear)])[torch.tensor([0])]["image"]
    assert torch.equal(white, torch.full_like(white, 255))
    grey = Convolutional(**SMALL).learn(GREY).inputs([png(deep)])[torch.tensor([0])]["image"]
    assert torch.equal(grey[0, 0], torch.from_numpy(GREY[0]))


def test_images_of_other_sizes_are_brought_to_one():
    sides = [(20, 30), (40, 60), (40, 60)]
    images = [np.full((*side, 3), 90 * at, np.uint8) for at, side in enumerate(sides)]
    encoder = Convolutional(**SMALL).learn(images)
    assert encoder.size == (40, 60)
    assert encoder.inputs(images)[torch.arange(3)]["image"].float().mean(dim=(1, 2, 3)).tolist() == [0, 90, 180]
    large = np.full((2, 300, 200), 7, np.uint8)
    encoder = Convolutional(**SMALL).learn(large)
    assert encoder.size == (96, 64)
    assert encoder.inputs(large)[torch.arange(2)]["image"].unique().tolist() == [7]
    assert Convolutional(size=16, **SMALL).learn(large).size == (16, 16)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            GREY * 2.0,
            r"pixels go from 0 to 510; expected fractions from 0 to 1, or whole numbers from 0 to 255: divide",
        ),
        (GREY / 255.0 - 0.5, r"pixels go from -0.5 to 0.5; expected fractions"),
        (np.r_[1, 1, np.nan, 1, 1, 1][:, None, None] * GREY / 255, r"image 2 has NaN or infinite"),
        (np.zeros((0, 4, 4)), r"shape \(0, 4, 4\); expected at least one row"),
        (GREY.astype(complex), r"type complex128; expected uint8"),
        (np.eye(3), r"was given ndarray; expected images"),
        (["a text"], r"was given list; expected images"),
    ],
)
def test_bad_pixels_are_refused(data, said):
    with pytest.raises(LabelError, match=said):
        Convolutional(**SMALL).learn(data)


def test_settings_outside_their_range_are_refused():
    for wrong in ({"unreadable": "drop"}, {"size": 2}, {"widths": ()}, {"widths": (0,)}):
        with pytest.raises(LabelError):
            Convolutional(**wrong)
    with pytest.raises(LabelError, match="depth is 0"):
        Residual(depth=0)
    with pytest.raises(LabelError, match="has not seen any image"):
        Convolutional().inputs(GREY)


# -- files ------------------------------------------------------------------------------------------------------------


def test_files_that_do_not_open_are_named(files, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    whole = Path(files[1]).read_bytes()
    Path(files[1]).write_bytes(whole[: len(whole) // 2])
    broken = [files[0], str(tmp_path / "none.png"), str(tmp_path / "text.png"), files[1], None, *files[2:]]
    encoder = Convolutional(**SMALL).learn(broken)
    with pytest.raises(LabelError) as caught:
        encoder.inputs(broken)
    said = str(caught.value)
    assert said.startswith("4 of 9 images cannot be read (row 1, ")
    assert "none.png: no such file; row 2, " in said
    assert "text.png: no image that Pillow knows; row 3, " in said
    assert "and 1 more). Repair or drop" in said
    assert "\n" not in said
    blank = Convolutional(unreadable="blank", **SMALL).learn(broken)
    seen = blank.inputs(broken)[torch.arange(9)]["image"]
    assert blank.unreadable_ == [1, 2, 3, 4]
    assert torch.equal(seen[1], seen[4])
    assert float(blank.standardised({"image": seen[1:2]}).abs().max()) < 0.02
    assert torch.equal(seen[0], torch.from_numpy(COLOUR[0]).permute(2, 0, 1))
    with pytest.raises(LabelError, match=r"2 of 2 images cannot be read"):
        Convolutional(unreadable="blank").learn(broken[1:3])


def test_files_are_decoded_once_while_there_is_room_and_again_beyond(files, monkeypatch):
    from anygrain.encoders import images

    decoded, read = [], images.decoded
    monkeypatch.setattr(images, "decoded", lambda item, *how: decoded.append(item) or read(item, *how))
    monkeypatch.setattr(images, "KEPT", 4 * 3 * 12 * 10)
    rows = ReadImages(files, 3, (12, 10), torch.zeros(3, dtype=torch.uint8)).read_all()
    assert sorted(decoded) == files
    for order in (EVERY, EVERY.flip(0), torch.tensor([3, 3, 5])):
        decoded.clear()
        assert torch.equal(rows[order]["image"], torch.from_numpy(COLOUR).permute(0, 3, 1, 2)[order])
        assert sorted(decoded) == [files[row] for row in sorted(order.tolist()) if row >= 4]
    assert rows._kept.numel() == 4 * 3 * 12 * 10


# -- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Convolutional, Residual])
@pytest.mark.parametrize("shape", [(5, 8, 8), (5, 28, 28), (5, 32, 32, 3), (5, 96, 96, 3), (5, 33, 50)])
def test_features_have_mean_zero_and_mean_square_one(kind, shape):
    data = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    encoder = kind().learn(data)
    features = encoder(data)
    assert features.shape == (5, encoder.feature_dim)
    assert torch.allclose(features.mean(dim=1), torch.zeros(5), atol=1e-5)
    assert torch.allclose(features.square().mean(dim=1), torch.ones(5), atol=1e-2)
    assert float(features.std(dim=0).mean()) > 1e-3


@pytest.mark.parametrize("kind", [Convolutional, Residual])
def test_parts_of_a_batch_are_the_whole(kind):
    encoder = kind(**SMALL).learn(COLOUR)
    with torch.no_grad():  # away from the start, where blocks are the identity
        for parameter in encoder.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    images = encoder.inputs(COLOUR)
    direction = torch.randn(encoder.feature_dim, generator=torch.Generator().manual_seed(2))

    def gradient(*parts: torch.Tensor) -> torch.Tensor:
        encoder.zero_grad()
        for rows in parts:
            (encoder.encode(images[rows]) @ direction).sum().backward()
        return torch.cat([p.grad.flatten() for p in encoder.parameters()])

    whole = gradient(EVERY)
    assert torch.allclose(gradient(EVERY[:1], EVERY[1:4], EVERY[4:]), whole, atol=1e-4 * float(whole.abs().max()))
    assert torch.allclose(encoder.encode(images[EVERY])[2:3], encoder.encode(images[EVERY[2:3]]), atol=1e-5)


def test_channels_are_standardised():
    encoder = Convolutional(**SMALL).learn(COLOUR)
    ready = encoder.standardised(encoder.inputs(COLOUR)[EVERY])
    assert torch.allclose(ready.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(ready.std(dim=(0, 2, 3), correction=0), torch.ones(3), atol=1e-4)
    framed = np.full((3, 8, 8), 200, np.uint8)
    framed[:, 1:-1, 1:-1] = GENERATOR.integers(0, 256, (3, 6, 6))
    assert float(Convolutional(**SMALL).learn(framed).edge) == pytest.approx(200 / 255)
    constant = Convolutional(**SMALL).learn(np.full((3, 8, 8), 9, np.uint8))
    assert constant(np.full((3, 8, 8), 9, np.uint8)).isfinite().all()


@pytest.mark.parametrize("kind", [Convolutional, Residual])
def test_saved_encoders_see_the_same(kind, files):
    encoder = kind(**SMALL).learn(files, seed=3)
    name = kind.__name__.lower()
    again = encoder_from(name, encoder.config(), encoder.state_dict())
    assert torch.equal(again(files), encoder(files))
    assert again.config() == encoder.config()
    assert torch.equal(kind(**SMALL).learn(files, seed=3)(files), encoder(files))
    assert not torch.equal(kind(**SMALL).learn(files, seed=4)(files), encoder(files))


# -- augmentation -----------------------------------------------------------------------------------------------------


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("channels", [1, 3])
def test_views_keep_shape_range_and_what_they_come_from(channels):
    image = torch.from_numpy(COLOUR).permute(0, 3, 1, 2)[:, :channels]
    before = image.clone()
    how = ImageAugmentation(flip=True, fill=[0.5] * channels)
    weak, strong = how.weak({"image": image}, generator())["image"], how.strong({"image": image}, generator())["image"]
    assert weak.shape == strong.shape == image.shape
    assert weak.dtype == strong.dtype == torch.uint8  # they stand in one batch
    of_fractions = how.strong({"image": as_fractions(image)}, generator())["image"]
    assert of_fractions.dtype == torch.float32
    assert float((as_fractions(strong) - of_fractions).abs().max()) < 0.51 / 255
    assert torch.equal(image, before)
    assert torch.equal(how.strong({"image": image}, generator())["image"], strong)
    assert not torch.equal(how.strong({"image": image}, generator(1))["image"], strong)
    assert set(how.weak({"image": image, "rows": EVERY}, generator())) == {"image", "rows"}


def test_without_changes_a_strong_view_is_the_image():
    image = torch.rand(4, 3, 9, 7, generator=generator())
    same = ImageAugmentation(shift=0, changes=0, hole=0)
    assert torch.allclose(same.strong({"image": image}, generator())["image"], image, atol=1e-5)
    still = ImageAugmentation(shift=0, changes=11, strength=0, hole=0)
    assert torch.allclose(still.strong({"image": image}, generator())["image"], image, atol=1e-5)


def test_a_weak_view_is_a_shift_of_the_image():
    image = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8)
    for edge, border in (("mirror", "reflect"), ("fill", "constant")):
        padded = torch.nn.functional.pad(image.float(), (1, 1, 1, 1), mode=border)
        shifts = {tuple(padded[0, 0, a : a + 8, b : b + 8].flatten().tolist()) for a in range(3) for b in range(3)}
        how = ImageAugmentation(edge=edge, fill=[0.0])
        views = how.weak({"image": image.expand(200, -1, -1, -1)}, generator())["image"]
        assert {tuple(view.flatten().tolist()) for view in views.float()} == shifts
    turned = ImageAugmentation(flip=True, shift=0).weak({"image": image.expand(100, -1, -1, -1)}, generator())["image"]
    same, mirror = (turned == image).flatten(1).all(dim=1), (turned == image.flip(3)).flatten(1).all(dim=1)
    assert bool((same ^ mirror).all())
    assert 30 < int(same.sum()) < 70


def test_a_hole_has_its_colour_and_at_most_its_size():
    image = torch.ones(50, 1, 20, 20)
    views = ImageAugmentation(shift=0, changes=0, hole=0.5, fill=[0.25]).strong({"image": image}, generator())["image"]
    holes = (views == 0.25).flatten(1).sum(dim=1)
    assert bool((((views - 1).abs() < 1e-5) | (views == 0.25)).all())
    assert 60 < int(holes.max()) <= 121
    assert int((holes > 0).sum()) > 30


def test_every_change_changes_some_views():
    from anygrain.encoders.augment_images import COLOURS, PLACES, _recoloured

    image = torch.rand(1, 3, 16, 16, generator=generator())
    nothing = {name: torch.zeros(1) for name in (*COLOURS, *PLACES)}
    how = ImageAugmentation()
    for name in PLACES:
        assert not torch.allclose(how._placed(image, {**nothing, name: torch.ones(1)}), image, atol=1e-2), name
    for name in COLOURS:
        assert not torch.allclose(_recoloured(image, {**nothing, name: torch.ones(1)}), image, atol=1e-2), name


def test_a_quarter_of_a_turn_is_a_turn_about_the_middle():
    """At strength 3 the turn is 90 degrees, which moves pixels onto pixels."""
    image = torch.rand(1, 1, 8, 8, generator=generator())
    nothing = dict.fromkeys(("shear_x", "shear_y", "shift_x", "shift_y", "scale"), torch.zeros(1))
    turned = ImageAugmentation()._placed(image, {**nothing, "turn": torch.tensor([3.0])})
    assert torch.allclose(turned, image.rot90(1, dims=(2, 3)), atol=1e-5)
    shifted = ImageAugmentation()._placed(image, {**nothing, "turn": torch.zeros(1), "shift_x": torch.tensor([5 / 6])})
    assert torch.allclose(shifted[..., :-2], image[..., 2:], atol=1e-5)
