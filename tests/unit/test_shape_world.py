"""The rendered world and the exact edits: targets and masks are what the instruction says, and nothing held out leaks."""

import json
import random
from collections import Counter

import numpy as np
import pytest

from ip2p.ip2p_core.pair_store import PairStore
from ip2p.trainer.embedded.pairs import CLOSINGS, OPENINGS, ZOOMS, plan_groups, training_scene_edits, write_pairs
from ip2p.trainer.embedded.pictures import HELD_OUT_PHOTOS, TRAINING_PHOTOS
from ip2p.trainer.photo_edits import EFFECTS, apply_effect, held_out_wording, training_wordings
from ip2p.trainer.photo_edits import WORDINGS as EFFECT_WORDINGS
from ip2p.trainer.shape_world.edits import EDIT_TYPES, WORDINGS, inverse_edit, random_edit
from ip2p.trainer.shape_world.judge import judge
from ip2p.trainer.shape_world.render import render, render_mask
from ip2p.trainer.shape_world.scene import BACKGROUNDS, HELD_OUT_COMBINATIONS, PALETTE, random_scene

SIZE = 48


def scene_and_edit(edit_type, seed):
    rng = random.Random(seed)
    scene = random_scene(rng, 1 + seed % 3)
    return rng, random_edit(rng, scene, edit_type)


@pytest.mark.parametrize("edit_type", EDIT_TYPES)
@pytest.mark.parametrize("seed", range(6))
def test_outside_its_mask_an_edit_changes_no_pixel_and_inside_it_changes_some(edit_type, seed):
    _, edit = scene_and_edit(edit_type, seed)
    before, after, mask = render(edit.before, SIZE), render(edit.after, SIZE), edit.mask(SIZE)
    np.testing.assert_array_equal(before[mask == 0], after[mask == 0])
    assert np.abs(before - after)[mask > 0.99].mean() > 0.02


@pytest.mark.parametrize("seed", range(6))
def test_a_recoloured_object_has_the_colour_that_the_instruction_names(seed):
    _, edit = scene_and_edit("recolour", seed)
    inside = render(edit.after, SIZE)[edit.mask(SIZE) > 0.99].mean(0) * 255
    nearest = min(PALETTE, key=lambda name: np.square(inside - PALETTE[name]).sum())
    assert nearest == edit.colour
    assert edit.colour in edit.instruction


@pytest.mark.parametrize("edit_type", EDIT_TYPES)
def test_the_inverse_of_an_edit_leads_back_and_says_so(edit_type):
    rng, edit = scene_and_edit(edit_type, 4)
    back = inverse_edit(rng, edit)
    assert (back.before, back.after) == (edit.after, edit.before)
    assert back.edit_type == {"add": "remove", "remove": "add"}.get(edit_type, edit_type)
    assert "{" not in back.instruction


@pytest.mark.parametrize("num_objects", [1, 2, 3])
def test_objects_neither_overlap_nor_share_shape_or_colour(num_objects):
    for seed in range(40):
        objects = random_scene(random.Random(seed), num_objects).objects
        assert len({thing.shape for thing in objects}) == len({thing.colour for thing in objects}) == num_objects
        covered = sum(render_mask((thing,), SIZE) for thing in objects)
        assert covered.max() <= 1.0


def test_a_scene_is_a_pure_function_of_its_seed():
    assert random_scene(random.Random(7), 3) == random_scene(random.Random(7), 3)
    assert random_scene(random.Random(7), 3) != random_scene(random.Random(8), 3)


def test_training_never_sees_held_out_combinations_or_wordings():
    held_out = {WORDINGS[kind][-1].split("{")[0] for kind in ("replace", "add", "remove", "background")} - {""}
    for index in range(150):
        for edit in training_scene_edits(0, index):
            combinations = {(o.colour, o.shape) for scene in (edit.before, edit.after) for o in scene.objects}
            assert not combinations & HELD_OUT_COMBINATIONS
            for text in edit.training_instructions():
                assert not any(text.startswith(start) for start in held_out - {"take the "})


def test_every_pair_of_training_points_to_pictures_that_exist_and_holds_no_held_out_text():
    groups = list(plan_groups(0, SIZE, num_originals=8, num_scenes=12))
    held_out = {held_out_wording(name) for name in EFFECTS}
    assert [len(group.pictures) for group in groups] == [7] * 8 + [4] * 12
    assert len({group.name for group in groups}) == 20
    same = [edit for group in groups for edit in group.edits if edit.original == edit.edited]
    assert 8 <= len(same) <= 18
    assert {edit.wordings for edit in same} == {training_wordings("identity")}
    for group in groups:
        for edit in group.edits:
            assert {edit.original, edit.edited} <= set(range(len(group.pictures)))
            assert (edit.captions[0] == edit.captions[1]) == (edit.original == edit.edited)
            assert edit.wordings
            assert not held_out & set(edit.wordings)


def test_pictures_of_a_plan_do_not_depend_on_how_many_are_asked_for():
    short, long = (plan_groups(3, 32, num_originals=count, num_scenes=0) for count in (1, 2))
    for one, other in zip(short, long, strict=False):
        for picture, same in zip(one.pictures, other.pictures, strict=True):
            np.testing.assert_array_equal(picture, same)


def test_the_pictures_of_a_training_scene_are_one_part_of_it_enlarged_with_an_object_in_it():
    side, zooms = 16, Counter()
    for index, group in enumerate(plan_groups(0, side, num_originals=0, num_scenes=40)):
        edits = training_scene_edits(side, index)
        pictures = np.concatenate(group.pictures, -1)
        scenes = [edits[0].before, *(edit.after for edit in edits)]
        zoom = next(zoom for zoom in set(ZOOMS) if is_part(pictures, scenes, zoom))
        zooms[zoom] += 1
        ground = np.array(BACKGROUNDS[scenes[0].background]) / 255
        assert (np.abs(group.pictures[0] - ground).max(-1) > 0.1).any()
    assert zooms.keys() == set(ZOOMS)


def test_outside_the_mask_of_a_training_scene_there_is_background_alone():
    for group in plan_groups(0, SIZE, num_originals=0, num_scenes=20):
        outside = group.objects == 0
        for picture in group.pictures:
            assert np.ptp(picture[outside], axis=0).max() < 1e-6
        assert (group.objects > 0.99).any()


def is_part(pictures, scenes, zoom) -> bool:
    """Say whether the same part of all scenes, drawn so much larger, is [h, w, channels of all]."""
    side = len(pictures)
    whole = np.concatenate([render(scene, zoom * side) for scene in scenes], -1)
    parts = np.lib.stride_tricks.sliding_window_view(whole, (side, side), axis=(0, 1))
    return bool((parts == np.moveaxis(pictures, -1, 0)).all((-3, -2, -1)).any())


def test_training_pairs_become_a_dataset_with_other_wordings_beside_four_in_ten_of_them_with_fillers(tmp_path):
    write_pairs(tmp_path / "pairs", seed=0, size=32, num_originals=4, num_scenes=6)
    records = [record for split in ("train", "val", "test") for record in PairStore(tmp_path / "pairs").records(split)]
    wordings = json.loads((tmp_path / "pairs_wordings.json").read_text())
    assert {record.triplet.instruction for record in records} == set(wordings)
    assert all(record.original.picture().size == (32, 32) for record in records[:3])
    assert all((record.mask is None) == record.prompt_id.startswith("photo") for record in records)
    for own, others in wordings.items():
        filled = [text for text in others if text.startswith(OPENINGS) or text.endswith(CLOSINGS)]
        assert len(filled) / (1 + len(others)) == pytest.approx(0.4, abs=0.07)
        assert own not in others
    before = sorted(path.stat().st_mtime_ns for path in (tmp_path / "pairs" / "shards").iterdir())
    write_pairs(tmp_path / "pairs", seed=0, size=32, num_originals=4, num_scenes=6)
    assert before == sorted(path.stat().st_mtime_ns for path in (tmp_path / "pairs" / "shards").iterdir())


def test_photographs_for_evaluation_are_not_trained_on():
    assert not set(TRAINING_PHOTOS) & set(HELD_OUT_PHOTOS.values())
    assert {name for _, name in HELD_OUT_PHOTOS.values()} >= {"astronaut.png", "chelsea.png", "china.jpg"}


def test_every_effect_has_five_wordings_for_training_and_one_of_its_own_for_evaluation():
    assert set(EFFECTS) == set(EFFECT_WORDINGS)
    texts = [text for wordings in EFFECT_WORDINGS.values() for text in wordings]
    assert len(texts) == len(set(texts))
    for name in EFFECTS:
        assert len(training_wordings(name)) >= 5
        assert held_out_wording(name) not in training_wordings(name)


@pytest.mark.parametrize("name", sorted(EFFECTS))
def test_an_effect_keeps_size_and_range_and_changes_every_picture_unless_it_is_the_identity(name):
    picture = np.random.default_rng(0).random((37, 50, 3)).astype(np.float32)
    result = apply_effect(name, picture)
    assert result.shape == picture.shape
    assert result.dtype == np.float32
    assert 0 <= result.min() <= result.max() <= 1
    assert (np.abs(result - picture).mean() == 0) == (name == "identity")


def test_pixelating_gives_blocks_of_the_mean_colour():
    picture = np.random.default_rng(0).random((20, 16, 3)).astype(np.float32)
    result = apply_effect("pixelate", picture)
    np.testing.assert_allclose(result[:8, :8], np.broadcast_to(picture[:8, :8].mean((0, 1)), (8, 8, 3)), rtol=1e-5)
    np.testing.assert_allclose(result[16:, 8:], np.broadcast_to(picture[16:, 8:].mean((0, 1)), (4, 8, 3)), rtol=1e-5)


def test_inverting_twice_gives_the_picture_back():
    picture = np.random.default_rng(0).random((9, 9, 3)).astype(np.float32)
    np.testing.assert_allclose(apply_effect("invert", apply_effect("invert", picture)), picture, atol=1e-6)


def test_the_judge_names_what_a_rendered_scene_shows():
    for seed in range(30):
        scene = random_scene(random.Random(seed), 1, allow_held_out=True)
        judgement = judge(render(scene, 128))
        thing = scene.objects[0]
        assert (judgement.background, judgement.colour, judgement.shape) == (
            scene.background,
            thing.colour,
            thing.shape,
        )
        assert np.abs(judgement.mask - (render_mask((thing,), 128) > 0.5)).mean() < 0.02


def test_the_judge_sees_no_object_where_there_is_none():
    judgement = judge(render(random_scene(random.Random(0), 0), 128))
    assert judgement.colour is None
    assert judgement.shape is None
