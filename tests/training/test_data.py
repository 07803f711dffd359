import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from convattn.errors import InputError
from convattn.images.io import read_rgb
from convattn.images.resize import resize_bicubic
from convattn.training.data import MARGIN, ImageFolder, PatchStream, crop_with_margin, make_pair


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    (tmp_path / "nested").mkdir()
    for name, size in {"a.png": (40, 61), "b.webp": (57, 40), "nested/c.png": (83, 45)}.items():
        image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / name, **({"lossless": True} if "webp" in name else {}))
    return tmp_path


def _stream(folder: Path, **changes: int) -> PatchStream:
    images = ImageFolder(folder, smallest=16, cache_gib=changes.pop("cache_gib", 1))
    return PatchStream(images, **({"scale": 2, "patch_size": 8, "batch_size": 4, "seed": 3} | changes))


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from([2, 3, 4]), st.integers(0, 9999))
def test_a_pair_is_a_crop_of_the_whole_shrunken_image(data: st.DataObject, scale: int, seed: int) -> None:
    height, width = data.draw(st.integers(8 * scale, 60)), data.draw(st.integers(8 * scale, 60))
    row = data.draw(st.integers(0, height // scale - 8))
    column = data.draw(st.integers(0, width // scale - 8))
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
    crop = crop_with_margin(image, row, column, scale=scale, patch_size=8)
    assert crop.shape[1:] == (scale * (8 + 2 * MARGIN), scale * (8 + 2 * MARGIN))
    low, high = make_pair(crop.unsqueeze(0), scale)

    whole = image[:, : height // scale * scale, : width // scale * scale]
    shrunken = resize_bicubic(whole, 1 / scale)[:, row : row + 8, column : column + 8]
    assert torch.equal(low[0], shrunken.float() / 255)
    top, left = scale * row, scale * column
    assert torch.equal(high[0], whole[:, top : top + 8 * scale, left : left + 8 * scale].float() / 255)


def test_a_step_is_the_same_whenever_it_is_made(folder: Path) -> None:
    steps = list(itertools.islice(_stream(folder), 6))
    assert steps[0].shape == (4, 3, 24, 24)
    assert not torch.equal(steps[0], steps[1])
    resumed = list(itertools.islice(_stream(folder, first_step=4), 2))
    assert all(map(torch.equal, steps[4:], resumed))
    unkept = list(itertools.islice(_stream(folder, cache_gib=0), 6))
    assert all(map(torch.equal, steps, unkept))
    assert not torch.equal(steps[0], next(iter(_stream(folder, seed=4))))


def test_a_step_is_the_same_on_any_number_of_workers_and_devices(folder: Path) -> None:
    steps = list(itertools.islice(_stream(folder), 5))
    workers = DataLoader(_stream(folder), batch_size=None, num_workers=2)
    assert all(map(torch.equal, steps, itertools.islice(workers, 5)))
    shares = [next(iter(_stream(folder, device=device, devices=2))) for device in range(2)]
    assert torch.equal(torch.stack(shares, 1).flatten(0, 1), steps[0])


def test_samples_come_from_all_over_in_eight_orientations(tmp_path: Path) -> None:
    ramp = np.add.outer(10 * np.arange(16), np.arange(16)).astype(np.uint8)  # every orientation is different
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    stream = PatchStream(ImageFolder(tmp_path, smallest=16), scale=2, patch_size=8, batch_size=1, seed=0)
    inner = slice(2 * MARGIN, -2 * MARGIN)
    seen = {stream.sample(number)[0, inner, inner].numpy().tobytes() for number in range(100)}
    turned = [np.rot90(side, k) for side in (ramp, ramp.T) for k in range(4)]
    assert seen == {np.ascontiguousarray(image).tobytes() for image in turned}


def test_grayscale_transparent_and_deep_images_become_rgb(tmp_path: Path) -> None:
    grayscale = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(grayscale).save(tmp_path / "grayscale.png")
    assert torch.equal(read_rgb(tmp_path / "grayscale.png"), torch.from_numpy(grayscale).expand(3, 8, 8))
    rgba = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    assert torch.equal(read_rgb(tmp_path / "rgba.png"), torch.from_numpy(rgba[..., :3]).permute(2, 0, 1))
    Image.fromarray(grayscale.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert torch.equal(read_rgb(tmp_path / "deep.png"), torch.from_numpy(grayscale).expand(3, 8, 8))


def test_unfit_folders_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing is not a folder"):
        ImageFolder(folder / "missing", smallest=8)
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        ImageFolder(folder / "empty", smallest=8)
    with pytest.raises(InputError, match=r"a\.png is 61x40 pixels, too small"):
        ImageFolder(folder, smallest=41)
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:200])
    with pytest.raises(InputError, match=r"broken\.png"):
        ImageFolder(folder, smallest=8)
