"""The published folders in and out, and the import of a user's own folders and of Parquet."""

from __future__ import annotations

import io
import json
import shutil

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from ip2p.ip2p_core.errors import PairStoreError
from ip2p.ip2p_core.pair_store import PairStore
from ip2p.ip2p_core.pair_store.folder_import import read_folders, read_instructions
from ip2p.ip2p_core.pair_store.importing import import_pairs
from ip2p.ip2p_core.pair_store.parquet_import import ColumnNames, read_parquet
from ip2p.ip2p_core.pair_store.published_layout import export_published, read_published
from ip2p.tests.unit.pair_store_samples import NO_LIMITS, add_all, record


@pytest.fixture
def store(tmp_path):
    add_all(tmp_path / "pairs", NO_LIMITS)
    return PairStore(tmp_path / "pairs")


def by_seed(store):
    return {one.seed: one for one in store.records()}


def test_a_round_trip_through_the_published_layout_keeps_texts_seeds_and_scores(store, tmp_path):
    assert export_published(store, tmp_path / "published") == 10
    report = import_pairs(read_published(tmp_path / "published"), tmp_path / "again", {})
    assert (report.num_added, report.problems) == (10, [])
    old, new = by_seed(store), by_seed(PairStore(tmp_path / "again"))
    assert set(old) == set(new)
    for seed, one in old.items():
        again = new[seed]
        assert again.prompt_id == one.prompt_id
        assert again.scores == one.scores
        assert (again.p2p_threshold, again.text_guidance_scale) == (one.p2p_threshold, one.text_guidance_scale)
        difference = again.original.tensor() - one.original.tensor()
        assert float(difference.abs().mean()) < 0.03  # JPEG


def test_the_published_layout_is_what_the_published_loader_reads(store, tmp_path):
    # edit_dataset.py: seeds.json -> [folder, seeds]; prompt.json["edit"]; {seed}_0.jpg, {seed}_1.jpg
    # metrics/compute_metrics.py and the generator: prompt.json["input"] and ["output"]
    root = tmp_path / "published"
    export_published(store, root)
    listed = json.loads((root / "seeds.json").read_text())
    assert listed == sorted(listed)
    assert sum(len(seeds) for _, seeds in listed) == 10
    for name, seeds in listed:
        assert len(name) == 7
        assert name.isdecimal()
        prompt = json.loads((root / name / "prompt.json").read_text())
        assert prompt["input"] == prompt["caption"]
        assert {"edit", "output"} < set(prompt)
        lines = [json.loads(line) for line in (root / name / "metadata.jsonl").read_text().splitlines()]
        assert sorted(str(line["seed"]) for line in lines) == seeds
        assert set(lines[0]) == {
            *("seed", "p2p_threshold", "cfg_scale", "clip_sim_0", "clip_sim_1", "clip_sim_dir", "clip_sim_image")
        }
        for seed in seeds:
            for number in (0, 1):
                with Image.open(root / name / f"{seed}_{number}.jpg") as picture:
                    assert (picture.format, picture.size) == ("JPEG", (12, 12))


def test_what_is_missing_in_published_folders_is_listed_and_the_rest_imported(store, tmp_path):
    root = tmp_path / "published"
    export_published(store, root)
    next((root / "0000000").glob("*_1.jpg")).unlink()
    (root / "0000001" / "prompt.json").write_text('{"caption": "a"}')
    with (root / "0000002" / "metadata.jsonl").open("a") as opened:
        opened.write("{\n")
    report = import_pairs(read_published(root), tmp_path / "again", {})
    assert report.num_added == 7
    assert [problem.where.split("/")[0] for problem in report.problems] == ["0000000", "0000001", "0000002"]
    assert "7 pairs added" in report.describe()


def test_an_import_that_ran_before_adds_only_what_is_new(store, tmp_path):
    root = tmp_path / "published"
    export_published(store, root)
    shutil.move(root / "0000004", tmp_path / "later")
    assert import_pairs(read_published(root), tmp_path / "again", {}).num_added == 8
    shutil.move(tmp_path / "later", root / "0000004")
    report = import_pairs(read_published(root), tmp_path / "again", {})
    assert (report.num_added, report.num_known) == (2, 8)


def test_an_import_stops_at_a_problem_by_choice(tmp_path):
    with pytest.raises(PairStoreError, match="Repair it, or choose to skip"):
        import_pairs(read_published(tmp_path / "none"), tmp_path / "again", {}, on_problem="raise")


def test_an_import_of_nothing_is_refused(tmp_path):
    with pytest.raises(PairStoreError, match="There is no pair to import"):
        import_pairs(read_published(tmp_path), tmp_path / "again", {})


@pytest.fixture
def own(tmp_path):
    """Five pairs of a user: JPEG before, PNG after; one without partner."""
    for number in range(5):
        for folder, suffix in (("before", "jpg"), ("after", "png")):
            (tmp_path / folder).mkdir(exist_ok=True)
            record(number, 0).original.picture().save(tmp_path / folder / f"photo{number}.{suffix}")
    record(9, 0).original.picture().save(tmp_path / "before" / "alone.jpg")
    return tmp_path


def write_texts(root, kind):
    """The same instructions for photo0 to photo4 in each form."""
    texts = {f"photo{number}": f"make it {number}" for number in range(5)}
    path = root / f"texts{kind}"
    if kind == "":
        path.mkdir()
        for stem, text in texts.items():
            (path / f"{stem}.txt").write_text(text)
    elif kind == ".txt":
        path.write_text("".join(f"{stem}\t{text}\n" for stem, text in texts.items()))
    elif kind == ".csv":
        path.write_text(
            "file_name,edit,caption\n" + "".join(f"{stem}.jpg,{text},a photo\n" for stem, text in texts.items())
        )
    else:
        path.write_text(json.dumps(texts))
    return path


@pytest.mark.parametrize("kind", ["", ".txt", ".csv", ".json"])
def test_own_folders_are_matched_by_stem_with_their_instructions(own, kind):
    report = import_pairs(read_folders(own / "before", own / "after", write_texts(own, kind)), own / "pairs", {})
    assert report.num_added == 5
    assert len(report.problems) == 1
    assert "there is no picture alone.*" in report.problems[0].reason
    found = {one.triplet.source: one for one in PairStore(own / "pairs").records()}
    assert found["photo3.jpg"].triplet.instruction == "make it 3"
    assert found["photo3.jpg"].mode == "imported"


def test_one_instruction_for_all_still_gives_every_pair_its_own_prompt(own):
    import_pairs(read_folders(own / "before", own / "after", "make it red"), own / "pairs", {})
    assert len({one.prompt_id for one in PairStore(own / "pairs").records()}) == 5


def test_a_pair_of_two_sizes_is_listed(own):
    Image.new("RGB", (5, 5)).save(own / "after" / "photo1.png")
    report = import_pairs(read_folders(own / "before", own / "after", "make it red"), own / "pairs", {})
    assert report.num_added == 4
    assert any("both need the same size" in problem.reason for problem in report.problems)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "photo0 make it red", "Line 1 of .* has no tab"),
        ("a.json", "{", "are not JSON"),
        ("a.json", '[{"stem": "a"}]', "Entry 1 of .* lacks"),
        ("a.csv", "name,colour\na,red", "Entry 1 of .* lacks"),
        ("a.doc", "", "are no folder, .txt, .json or .csv"),
    ],
)
def test_instructions_that_cannot_be_read_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(PairStoreError, match=message):
        read_instructions(tmp_path / name)


def encoded(number, suffix):
    buffer = io.BytesIO()
    record(number, 0).original.picture().save(buffer, format=suffix)
    return buffer.getvalue()


def write_parquet(path, names, cell):
    rows = {
        names[0]: [cell(encoded(number, "PNG")) for number in range(3)],
        names[1]: ["make it red", "make it red", None],
        names[2]: [cell(encoded(number, "JPEG")) for number in range(3)],
    }
    parquet.write_table(pyarrow.table(rows), path)


@pytest.mark.parametrize(
    "names", [("original_image", "edit_prompt", "edited_image"), ("source_img", "instruction", "target_img")]
)
@pytest.mark.parametrize(
    "cell", [lambda data: {"bytes": data, "path": "a.png"}, lambda data: data], ids=["struct", "bytes"]
)
def test_parquet_is_imported_by_known_column_names(tmp_path, names, cell):
    write_parquet(tmp_path / "a.parquet", names, cell)
    report = import_pairs(read_parquet(tmp_path / "a.parquet"), tmp_path / "pairs", {})
    assert (report.num_added, len(report.problems)) == (2, 1)
    assert report.problems[0] == ("a.parquet row 2", "the instruction is empty")
    found = list(PairStore(tmp_path / "pairs").records())
    assert found[0].original.read() == encoded(0, "PNG")
    assert len({one.prompt_id for one in found}) == 2


def test_parquet_is_imported_by_column_names_that_the_user_gives(tmp_path):
    write_parquet(tmp_path / "a.parquet", ("x", "y", "z"), lambda data: data)
    report = import_pairs(read_parquet(tmp_path, ColumnNames("x", "y", "z")), tmp_path / "pairs", {})
    assert report.num_added == 2


@pytest.mark.parametrize(
    ("wanted", "message"),
    [(ColumnNames(), "No column is known for input_image; the file has x, y, z"), (ColumnNames("q"), "no column 'q'")],
)
def test_a_column_that_cannot_be_found_is_named(tmp_path, wanted, message):
    write_parquet(tmp_path / "a.parquet", ("x", "y", "z"), lambda data: data)
    with pytest.raises(PairStoreError, match=message):
        list(read_parquet(tmp_path / "a.parquet", wanted))
