"""Pictures of every kind simply work, and come back with their own size and transparency."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
from PIL import Image

from ip2p.tests.e2e.conftest import make_workplace, noise_picture, read_picture, run_cli

INSTRUCTION = "make it 🌙 night 👩‍👩‍👧"
ROTATED = 6  # EXIF: turn by 90 degrees clockwise to see it upright


def make_pictures(folder: Path) -> dict[str, tuple[int, int]]:
    """Write one picture of each kind; return name -> size as seen."""
    folder.mkdir()
    noise_picture(40, 30, 4).save(folder / "alpha.png")
    noise_picture(40, 30, 1).save(folder / "grey.png")
    deep = numpy.random.default_rng(0).integers(0, 65536, (30, 40)).astype(numpy.uint16)
    Image.fromarray(deep).save(folder / "sixteen.png")
    noise_picture(40, 30, 4).convert("RGB").convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    noise_picture(40, 30).save(folder / "rotated.jpg", exif=exif)
    noise_picture(1, 1).save(folder / "dot.png")
    noise_picture(8000, 30).save(folder / "strip.png")
    noise_picture(40, 30).convert("P").save(folder / "palette.gif")
    (folder / "notes.txt").write_text("not a picture, and not asked for")
    usual = dict.fromkeys(["alpha.png", "grey.png", "sixteen.png", "cmyk.jpg", "palette.gif"], (40, 30))
    return {**usual, "rotated.jpg": (30, 40), "dot.png": (1, 1), "strip.png": (8000, 30)}


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory, models: Path) -> tuple[Path, dict[str, tuple[int, int]]]:
    """A folder of pictures of every kind, edited by one call: the workplace, and name -> size as seen."""
    workplace = make_workplace(tmp_path_factory.mktemp("album"), models)
    sizes = make_pictures(workplace / "photos")
    done = run_cli(workplace, "edit", "photos", INSTRUCTION, "-o", "out")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(sizes)
    return workplace, sizes


def result(workplace: Path, name: str) -> Path:
    return workplace / "out" / f"{Path(name).stem}-make-it-night.png"


def test_every_kind_of_picture_in_a_folder_comes_back_in_its_own_size(album):
    workplace, sizes = album
    assert {name: read_picture(result(workplace, name)).size for name in sizes} == sizes


def test_transparency_is_kept_exactly_and_never_invented(album):
    workplace, sizes = album
    modes = {name: read_picture(result(workplace, name)).mode for name in sizes}
    assert {name for name, mode in modes.items() if mode != "RGB"} == {"alpha.png"}
    before, after = (read_picture(path) for path in (workplace / "photos/alpha.png", result(workplace, "alpha.png")))
    assert before.getchannel("A").tobytes() == after.getchannel("A").tobytes()


def test_an_emoji_reaches_the_record_unharmed(album):
    sidecar = result(album[0], "grey.png").with_suffix(".png.json")
    assert json.loads(sidecar.read_text(encoding="utf-8"))["chain"] == [INSTRUCTION]


def test_alternatives_and_seeds_give_one_distinct_result_each(cli, workplace):
    noise_picture(40, 30).save(workplace / "photo.png")
    done = cli("edit", "photo.png", "-i", "make it night", "-i", "make it red", "--seeds", "0-1", "-o", "out")
    assert done.returncode == 0, done.stderr
    pictures = sorted((workplace / "out").glob("*.png"))
    assert [path.name for path in pictures] == [
        f"photo-make-it-{what}-seed{seed}.png" for what in ("night", "red") for seed in (0, 1)
    ]
    assert len({path.read_bytes() for path in pictures}) == 4


def test_pixels_outside_the_mask_are_untouched(cli, workplace):
    photo = noise_picture(64, 48)
    photo.save(workplace / "photo.png")
    mask = numpy.zeros((48, 64), dtype=numpy.uint8)
    mask[10:30, 20:50] = 255
    Image.fromarray(mask).save(workplace / "mask.png")
    done = cli(
        "edit",
        "photo.png",
        "make it night",
        "--mask",
        "mask.png",
        "--feather",
        "3",
        "--denoise",
        "0.8",
        "-o",
        "out.png",
    )
    assert done.returncode == 0, done.stderr
    before, after = numpy.asarray(photo), numpy.asarray(read_picture(workplace / "out.png"))
    numpy.testing.assert_array_equal(before[mask == 0], after[mask == 0])
    assert (before[15:25, 30:40] != after[15:25, 30:40]).mean() > 0.5


@pytest.mark.parametrize("source", ["first.png", "first.png.json"])
def test_a_record_repeats_the_identical_picture(cli, workplace, source):
    noise_picture(40, 30).save(workplace / "photo.png")
    options = [
        "--seed",
        7,
        "-t",
        3,
        "-g",
        1.2,
        "--steps",
        3,
        "--text-interval",
        0,
        0.7,
        "--rescale",
        0.3,
        "--apg-eta",
        0.5,
    ]
    done = cli(
        "edit",
        "photo.png",
        "make it night",
        *options,
        "--sampler",
        "dpmpp_2m",
        "--scheduler",
        "karras",
        "-o",
        "first.png",
    )
    assert done.returncode == 0, done.stderr
    again = cli("edit", "--repeat", source, "-o", "second.png", model=None)
    assert again.returncode == 0, again.stderr
    assert (workplace / "second.png").read_bytes() == (workplace / "first.png").read_bytes()
    assert again.stderr == ""


def test_a_chain_equals_its_first_edit_with_one_link_and_differs_with_two(cli, workplace):
    noise_picture(40, 30).save(workplace / "photo.png")
    for name, texts in (
        ("single", ["make it night"]),
        ("chain", ["make it night"]),
        ("two", ["make it night", "add snow"]),
    ):
        chain = ["--chain"] if name != "single" else []
        done = cli("edit", "photo.png", *chain, *(part for text in texts for part in ("-i", text)), "-o", f"{name}.png")
        assert done.returncode == 0, done.stderr
    pixels = {name: read_picture(workplace / f"{name}.png").tobytes() for name in ("single", "chain", "two")}
    assert pixels["single"] == pixels["chain"] != pixels["two"]


def test_a_dry_run_writes_nothing_and_says_what_would_be_done(cli, workplace):
    noise_picture(40, 30).save(workplace / "photo.png")
    done = cli("edit", "photo.png", "make it night", "--seeds", "1,2", "-g", "1", "--dry-run", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert not (workplace / "out").exists()
    assert "2 of 2 pictures, 4 steps of euler_ancestral, 16 network evaluations" in done.stdout
