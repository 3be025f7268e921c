"""`ip2p dataset` as a user runs it."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from ip2p.ip2p_core.pair_store import PairStore
from ip2p.tests.e2e.conftest import noise_picture, one_sentence
from ip2p.tests.forked import ip2p


def dataset(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return ip2p("dataset", *arguments, cwd=folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four pairs of a user, imported into the dataset `pairs`."""
    folder = tmp_path_factory.mktemp("dataset")
    for number in range(4):
        for place, name in enumerate(("before", "after")):
            (folder / name).mkdir(exist_ok=True)
            noise_picture(24, 16, seed=2 * number + place).save(folder / name / f"photo{number}.png")
    texts = {f"photo{number}": f'make it <b>"{number}"</b>' for number in range(4)}
    (folder / "texts.json").write_text(json.dumps(texts))
    run = dataset(folder, "import", "folders", "before", "after", "--instructions", "texts.json", "-o", "pairs")
    assert (run.returncode, run.stdout) == (0, "4 pairs added, 0 were there already, 0 skipped.\n"), run.stderr
    return folder


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures: list[str] = []
        self.boxes: list[dict[str, str | None]] = []
        self.outside: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "img":
            self.pictures.append(values["src"] or "")
        if tag == "input":
            self.boxes.append(values)
        self.outside += [
            value for name, value in attrs if name in ("src", "href") and not (value or "").startswith("data:")
        ]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_every_pair_with_a_box_and_needs_nothing_from_outside(made):
    run = dataset(made, "browse", "pairs", "-o", "page.html", "--size", "20")
    assert run.returncode == 0, run.stderr
    page = Page((made / "page.html").read_text(encoding="utf-8"))
    assert page.outside == []
    keys = {(one.prompt_id, str(one.sample_index)) for one in PairStore(made / "pairs").records()}
    assert {(box["data-prompt"], box["data-sample"]) for box in page.boxes} == keys
    assert 'make it <b>"2"</b>' in page.text
    pictures = [Image.open(io.BytesIO(base64.b64decode(one.split(",")[1]))) for one in page.pictures]
    assert [one.size for one in pictures] == [(20, 13)] * 8


def test_a_list_is_applied_and_taken_back(made):
    first = next(PairStore(made / "pairs").records())
    rejected = [{"prompt_id": first.prompt_id, "sample_index": first.sample_index}]
    (made / "list.json").write_text(json.dumps({"format": "ip2p.rejected_pairs", "rejected": rejected}))
    assert dataset(made, "apply", "pairs", "list.json", "-o", "smaller").returncode == 0
    assert (len(PairStore(made / "smaller")), len(PairStore(made / "pairs"))) == (3, 4)
    assert "1 pairs are left out" in dataset(made, "apply", "pairs", "list.json").stdout
    assert len(PairStore(made / "pairs")) == 3
    assert dataset(made, "apply", "pairs", "list.json", "--restore").returncode == 0
    assert len(PairStore(made / "pairs")) == 4


def test_statistics_are_printed_as_json(made):
    run = dataset(made, "stats", "pairs", "--json")
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    assert (figures["pairs"], figures["modes"]) == (4, {"imported": 4})
    assert figures["duplicates"] == {"exact": 0, "similar": 0, "unchanged": 0}


def test_a_damaged_shard_is_named_dropped_and_imported_again(made, tmp_path):
    arguments = (
        "import",
        "folders",
        made / "before",
        made / "after",
        "--instructions",
        made / "texts.json",
        "-o",
        "pairs",
    )
    dataset(tmp_path, *arguments)
    shard = next((tmp_path / "pairs" / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-9])
    run = dataset(tmp_path, "validate", "pairs")
    assert run.returncode == 1
    assert shard.stem in run.stdout
    assert dataset(tmp_path, "validate", "pairs", "--drop").returncode == 0
    assert "4 pairs added" in dataset(tmp_path, *arguments).stdout
    assert dataset(tmp_path, "validate", "pairs").returncode == 0


@pytest.mark.parametrize("layout", ["published", "diffusers", "ai-toolkit", "musubi", "simpletuner"])
def test_every_layout_is_exported(made, tmp_path, layout):
    run = dataset(tmp_path, "export", made / "pairs", "--format", layout, "-o", "out")
    assert (run.returncode, run.stdout) == (0, f"Wrote 4 pairs to out for {layout}.\n"), run.stderr
    assert (tmp_path / "out").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("stats", "nothing"), "nothing is not a dataset of pairs"),
        (("export", "pairs", "--format", "zip", "-o", "x"), "invalid choice"),
        (("import", "parquet", "before", "-o", "x"), "There is no .parquet file in before"),
        (("browse", "pairs", "-o", "x.html", "--limit", "0"), "--limit is 0"),
        (("apply", "pairs", "texts.json"), "is no list of rejected pairs"),
    ],
)
def test_a_mistake_is_one_sentence(made, arguments, message):
    run = dataset(made, *arguments)
    assert run.returncode == 2
    assert message in one_sentence(run.stderr)
