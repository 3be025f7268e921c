from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from ip2p.ip2p_core.errors import BadImage
from ip2p.ip2p_core.image_tensor import from_model, load_image, to_model, to_pil, to_uint8

WIDTH, HEIGHT = 7, 5


@pytest.fixture
def ramp() -> numpy.ndarray:
    """A picture [H, W, 3] without any symmetry."""
    return numpy.arange(HEIGHT * WIDTH * 3, dtype=numpy.uint8).reshape(HEIGHT, WIDTH, 3) * 2


def saved(tmp_path: Path, picture: Image.Image, name: str, **options) -> Path:
    picture.save(tmp_path / name, **options)
    return tmp_path / name


def as_pixels(array: numpy.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(numpy.float32) / 255.0)


def test_the_two_ranges_are_inverse():
    image = torch.rand(2, 4, 6, 3, dtype=torch.float64)
    pixels = to_model(image)
    assert pixels.shape == (2, 3, 4, 6)
    assert -1 <= pixels.min() < 0 < pixels.max() <= 1
    torch.testing.assert_close(from_model(pixels), image)


def test_what_the_model_overshoots_is_clamped():
    pixels = torch.tensor([-3.0, 3.0]).reshape(1, 1, 1, 2).expand(1, 3, 1, 2)
    assert from_model(pixels)[0, 0, :, 0].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.bmp", "a.webp"])
def test_lossless_files_come_back_bit_for_bit(tmp_path, ramp, name):
    options = {"lossless": True} if name.endswith("webp") else {}
    loaded = load_image(saved(tmp_path, Image.fromarray(ramp), name, **options))
    assert loaded.alpha is None
    assert torch.equal(loaded.pixels, as_pixels(ramp))
    assert numpy.array_equal(to_uint8(loaded.pixels), ramp)


def test_alpha_is_kept_apart_and_can_be_put_back(tmp_path, ramp):
    rgba = numpy.concatenate(
        [ramp, numpy.arange(HEIGHT * WIDTH, dtype=numpy.uint8).reshape(HEIGHT, WIDTH, 1) * 7], axis=2
    )
    loaded = load_image(saved(tmp_path, Image.fromarray(rgba), "a.png"))
    assert torch.equal(loaded.pixels, as_pixels(ramp))
    assert torch.equal(loaded.alpha, as_pixels(rgba[..., 3]))
    assert numpy.array_equal(numpy.array(to_pil(loaded.pixels, loaded.alpha)), rgba)


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "PA"])
def test_grey_and_palette_files_become_colour(tmp_path, ramp, mode):
    picture = Image.fromarray(ramp).convert("L" if mode == "LA" else mode if mode in ("L", "1", "P") else "P")
    picture = picture.convert(mode)
    wanted = numpy.array(picture.convert("RGB"))
    loaded = load_image(saved(tmp_path, picture, "a.tiff" if mode == "PA" else "a.png"))
    assert loaded.pixels.shape == (HEIGHT, WIDTH, 3)
    assert (loaded.alpha is not None) == mode.endswith("A")
    assert torch.equal(loaded.pixels, as_pixels(wanted))


def test_a_transparent_palette_colour_is_alpha(tmp_path, ramp):
    picture = Image.fromarray(ramp).quantize(8)
    index = picture.getpixel((0, 0))
    loaded = load_image(saved(tmp_path, picture, "a.png", transparency=index))
    assert loaded.alpha[0, 0] == 0
    assert loaded.alpha.max() == 1


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_sixteen_bit_grey_is_scaled_by_its_own_range(tmp_path, name):
    values = numpy.array([[0, 1, 255, 256], [32768, 40000, 65534, 65535]], dtype=numpy.uint16)
    loaded = load_image(saved(tmp_path, Image.fromarray(values), name))
    wanted = torch.from_numpy(values.astype(numpy.float64) / 65535.0).float()
    torch.testing.assert_close(loaded.pixels, wanted[..., None].repeat(1, 1, 3), atol=1e-7, rtol=0)


def test_sixteen_bit_grey_that_is_dark_stays_dark(tmp_path):
    values = numpy.full((4, 4), 200, dtype=numpy.uint16)
    loaded = load_image(saved(tmp_path, Image.fromarray(values), "a.png"))
    torch.testing.assert_close(loaded.pixels, torch.full((4, 4, 3), 200 / 65535))


def test_float_tiff_within_the_unit_range_is_taken_and_beyond_it_refused(tmp_path):
    values = numpy.linspace(0, 1, 12, dtype=numpy.float32).reshape(3, 4)
    loaded = load_image(saved(tmp_path, Image.fromarray(values), "a.tiff"))
    torch.testing.assert_close(loaded.pixels[..., 0], torch.from_numpy(values))
    with pytest.raises(BadImage, match="within 0 and 1"):
        load_image(saved(tmp_path, Image.fromarray(values * 300), "b.tiff"))


@pytest.mark.parametrize("name", ["a.jpg", "a.tiff"])
def test_cmyk_becomes_the_colours_it_stands_for(tmp_path, name):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)]
    picture = Image.new("RGB", (40, 8))
    for i, colour in enumerate(colours):
        picture.paste(colour, (i * 8, 0, i * 8 + 8, 8))
    options = {"quality": 100, "subsampling": 0} if name.endswith("jpg") else {}
    loaded = load_image(saved(tmp_path, picture.convert("CMYK"), name, **options))
    torch.testing.assert_close(
        loaded.pixels[4, 4::8], torch.tensor(colours, dtype=torch.float32) / 255.0, atol=0.03, rtol=0
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path, ramp, orientation):
    upright = Image.fromarray(ramp)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Transpose that a camera's turning amounts to
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    loaded = load_image(saved(tmp_path, stored, "a.png", exif=exif))
    assert torch.equal(loaded.pixels, as_pixels(ramp))


@pytest.mark.parametrize("size", [(1, 1), (8000, 30), (1, 300)])
def test_extreme_sizes_load(tmp_path, size):
    loaded = load_image(saved(tmp_path, Image.new("RGB", size, (10, 20, 30)), "a.png"))
    assert loaded.pixels.shape == (size[1], size[0], 3)


def test_the_first_picture_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    path = saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    torch.testing.assert_close(load_image(path).pixels[0, 0], torch.tensor([1.0, 0.0, 0.0]))


def test_names_with_spaces_and_emoji_work(tmp_path, ramp):
    assert load_image(saved(tmp_path, Image.fromarray(ramp), "ein Bild 🐱.png")).pixels.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tiff", "a.gif", "a.bmp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_one_clear_sentence(tmp_path, name, share):
    noise = numpy.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=numpy.uint8)
    path = saved(tmp_path, Image.fromarray(noise), name)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BadImage, match=r"^a\.\w+ is (damaged or cut off|not an image)"):
        load_image(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"<svg></svg>", bytes(range(256)) * 20])
def test_what_is_not_an_image_is_one_clear_sentence(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(BadImage, match=r"^a\.png is (damaged or cut off|not an image)"):
        load_image(tmp_path / "a.png")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(BadImage, match="There is no file"):
            load_image(path)
