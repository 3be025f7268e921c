"""The whole rendered world: exact edits and masks, captions that say what changes, nothing held out, the plain world as it was."""

import hashlib
import random
import time
from dataclasses import replace

import numpy as np
import pytest

from ip2p.ip2p_core.errors import ConfigError
from ip2p.trainer.shape_world.captioned_edits import captioned_edit
from ip2p.trainer.shape_world.edits import EDIT_TYPES, inverse_edit, random_edit
from ip2p.trainer.shape_world.materials import pattern
from ip2p.trainer.shape_world.render import render, render_mask
from ip2p.trainer.shape_world.scene import (
    HELD_OUT_COMBINATIONS,
    HELD_OUT_MATERIALS,
    MATERIALS,
    MEDIA,
    PALETTE,
    SHAPES,
    WEATHERS,
    Scene,
    SceneObject,
    random_scene,
)
from ip2p.trainer.shape_world.world import groups_of, random_world_scene
from ip2p.trainer.shape_world.world_edits import inverse_world_edit, random_world_edit, world_edit_at
from ip2p.trainer.shape_world.world_settings import FULL, SMALL, Planted, WorldSettings
from ip2p.trainer.shape_world.world_wordings import PATTERNS, WORLD_EDIT_TYPES, WORLD_WORDINGS

SIZE = 48
DRAWS = "5ad41186068d03220bffcc421f94559e08d74f114b93111162a57d420bbd686c"
"""Of the plain world's draws and texts, recorded before the world grew."""
PIXELS = "b435e5545f924b503f5c7198713b388209eb451e24072db5f04a50d8b07dbe05"


def edit_of(edit_type, seed, settings=FULL, **choices):
    return random_world_edit(random.Random(f"test/{edit_type}/{seed}"), settings, edit_type, **choices)


def _record(scene):
    places = [tuple(round(x, 9) for x in (one.x, one.y, one.radius, one.angle)) for one in scene.objects]
    names = [(one.shape, one.colour) for one in scene.objects]
    return (scene.background, tuple(a + b for a, b in zip(names, places, strict=True)), scene.caption())


def _bytes(picture):
    return (picture * 255 + 0.5).astype("uint8").tobytes()


def test_the_plain_world_draws_says_and_paints_what_it_always_did():
    draws, pixels = hashlib.sha256(), hashlib.sha256()
    for i in range(60):
        rng = random.Random(f"pinned/{i}")
        scene = random_scene(rng, 1 + i % 3, allow_held_out=i % 2 == 0)
        edit = random_edit(rng, scene, EDIT_TYPES[i % 5], held_out_wording=i % 7 == 0)
        captioned = captioned_edit(random.Random(f"pinned-caption/{i}"))
        for one in (edit, inverse_edit(rng, edit), captioned.edit):
            sides = _record(one.before), _record(one.after)
            said = one.slots, one.colour, one.is_held_out(), one.training_instructions()
            draws.update(repr((one.edit_type, one.instruction, *sides, *said)).encode())
            pixels.update(_bytes(one.mask(32)))
            for side in (one.before, one.after):
                pixels.update(_bytes(render(side, 32)))
        draws.update(repr((captioned.caption, captioned.edited_caption)).encode())
    assert draws.hexdigest() == DRAWS
    assert pixels.hexdigest() == PIXELS


@pytest.mark.parametrize("edit_type", WORLD_EDIT_TYPES)
@pytest.mark.parametrize("seed", range(12))
def test_outside_its_mask_an_edit_changes_no_pixel_and_inside_it_changes_some(edit_type, seed):
    edit = edit_of(edit_type, seed)
    before, after, mask = render(edit.before, SIZE), render(edit.after, SIZE), edit.mask(SIZE)
    np.testing.assert_array_equal(before[mask == 0], after[mask == 0])
    assert np.abs(before - after)[mask > 0.99].max() > 0.1
    assert edit.caption != edit.edited_caption


@pytest.mark.parametrize("edit_type", sorted(set(WORLD_EDIT_TYPES) - {"medium", "weather"}))
def test_the_mask_of_an_edit_of_objects_or_background_leaves_a_part_of_the_picture_out(edit_type):
    shares = [edit_of(edit_type, seed).mask(SIZE).mean() for seed in range(8)]
    assert 0.02 < np.mean(shares) < 0.98
    assert min(shares) > 0


@pytest.mark.parametrize("edit_type", WORLD_EDIT_TYPES)
def test_the_inverse_of_an_edit_leads_back(edit_type):
    edit = edit_of(edit_type, 3)
    back = inverse_world_edit(random.Random(0), edit)
    if edit_type == "move":
        assert back is None
        return
    assert (back.before, back.after) == (edit.after, edit.before)
    assert (back.caption, back.edited_caption) == (edit.edited_caption, edit.caption)
    assert back.edit_type == {"add": "remove", "remove": "add"}.get(edit_type, edit_type)
    assert "{" not in back.instruction


def test_an_edit_changes_what_its_instruction_names():
    for seed in range(20):
        named = {
            "recolour": lambda edit, thing: thing.colour,
            "material": lambda edit, thing: PATTERNS[thing.material],
            "replace": lambda edit, thing: thing.shape,
            "add": lambda edit, thing: thing.shape,
        }
        for edit_type, word_of in named.items():
            edit = edit_of(edit_type, seed)
            new = next(one for one in edit.after.objects if one not in edit.before.objects)
            assert word_of(edit, new) in edit.instruction
        assert edit_of("background", seed).after.background in edit_of("background", seed).instruction
        count = edit_of("count", seed)
        number = sum(one.shape == count.change.subjects[0] for one in count.after.objects)
        assert ("no", "one", "two", "three", "four")[number] in count.instruction


def test_a_moved_object_stands_at_the_side_that_is_named_and_swapped_ones_where_the_other_was():
    for seed in range(20):
        move = edit_of("move", seed)
        (thing,) = set(move.after.objects) - set(move.before.objects)
        away = {"left": thing.x, "right": 1 - thing.x, "top": thing.y, "bottom": 1 - thing.y}[move.change.variant]
        assert away == pytest.approx(thing.radius + 0.05)
        assert f" {move.change.variant}" in move.instruction
        swap = edit_of("swap", seed)
        first, second = (
            {one.shape: (one.x, one.y) for one in side.objects if one.shape in swap.change.subjects}
            for side in (swap.before, swap.after)
        )
        a, b = swap.change.subjects
        assert (first[a], first[b]) == (second[b], second[a])


def test_a_mirrored_picture_is_the_mirror_image_but_for_its_weather_and_medium():
    for seed in range(40):
        edit = edit_of("viewpoint", seed)
        if edit.change.variant != "mirrored":
            continue
        before, after = (
            render(replace(side, weather="clear", medium="flat"), SIZE) for side in (edit.before, edit.after)
        )
        assert np.abs(before[:, ::-1] - after).mean() < 0.01


def test_zooming_out_makes_everything_smaller_by_the_same_factor_around_the_middle():
    edits = [edit_of("viewpoint", seed) for seed in range(30)]
    far = [edit for edit in edits if edit.change.variant == "far"]
    assert far
    for edit in far:
        for one, same in zip(edit.before.objects, edit.after.objects, strict=True):
            assert (same.x - 0.5, same.radius) == pytest.approx(((one.x - 0.5) / 1.35, one.radius / 1.35))
            assert one.size == "large"


def test_training_never_sees_held_out_combinations_or_wordings():
    for seed in range(60):
        for edit_type in WORLD_EDIT_TYPES:
            edit = edit_of(edit_type, seed)
            things = [one for side in (edit.before, edit.after) for one in side.objects]
            assert not {(one.colour, one.shape) for one in things} & HELD_OUT_COMBINATIONS
            assert not {(one.material, one.shape) for one in things} & HELD_OUT_MATERIALS
            assert edit.instruction in edit.training_instructions()
            held_out = edit_of(edit_type, seed, held_out_wording=True)
            assert held_out.instruction not in held_out.training_instructions()


def test_held_out_combinations_occur_where_they_are_asked_for():
    edits = [world_edit_at("held", 0, i, FULL, allow_held_out=True) for i in range(200)]
    assert sum(edit.is_held_out() for edit in edits) > 40


def test_every_set_of_wordings_has_six_different_ones():
    for wordings in WORLD_WORDINGS.values():
        assert len(set(wordings)) == len(wordings) >= 6


def test_objects_lie_apart_and_shapes_and_colours_name_groups():
    for seed in range(60):
        scene = random_world_scene(random.Random(seed), FULL)
        assert 1 <= len(scene.objects) <= 4
        groups = groups_of(scene)
        assert len({group.first.colour for group in groups}) == len(groups)
        for group in groups:
            assert len({(one.colour, one.material, one.radius) for one in group.objects}) == 1
        assert sum(render_mask((one,), SIZE) for one in scene.objects).max() <= 1.0


def test_everything_that_the_settings_name_occurs_and_nothing_else():
    scenes = [random_world_scene(random.Random(seed), FULL) for seed in range(200)]
    things = [one for scene in scenes for one in scene.objects]
    assert {one.shape for one in things} == set(SHAPES)
    assert {one.colour for one in things} == set(PALETTE)
    assert {(one.material, one.size) for one in things} == {(m, s) for m in MATERIALS for s in ("small", "large")}
    assert {(scene.weather, scene.medium) for scene in scenes} == {(w, m) for w in WEATHERS for m in MEDIA}
    assert {len(scene.objects) for scene in scenes} == {1, 2, 3, 4}
    assert max(group.number for scene in scenes for group in groups_of(scene)) >= 3
    for seed in range(60):
        scene = random_world_scene(random.Random(seed), SMALL)
        assert (scene.weather, scene.medium) == ("clear", "flat")
        assert all((one.material, one.size) == ("plain", "large") for one in scene.objects)
        assert len(scene.objects) <= 2


def test_an_edit_is_a_pure_function_of_purpose_seed_and_place():
    same, *others = [world_edit_at(name, 0, place, FULL) for name, place in (("a", 5), ("a", 6), ("b", 5))]
    assert same == world_edit_at("a", 0, 5, FULL)
    assert same not in others


def test_a_planted_shape_has_its_colour_in_its_share_of_scenes_and_of_edited_scenes():
    settings = replace(FULL, planted=Planted(shape="heart", colour="red", share=0.9), materials=("plain", "dots"))
    scenes = [random_world_scene(random.Random(seed), settings) for seed in range(1500)]
    scenes_of_edits = [world_edit_at("planted", 0, i, settings).after for i in range(1500)]
    for drawn, tolerance in ((scenes, 0.04), (scenes_of_edits, 0.08)):
        hearts = [group.first.colour for scene in drawn for group in groups_of(scene) if group.shape == "heart"]
        assert hearts.count("red") / len(hearts) == pytest.approx(0.9, abs=tolerance)
    free = [random_world_scene(random.Random(seed), FULL) for seed in range(500)]
    hearts = [one.colour for scene in free for one in scene.objects if one.shape == "heart"]
    assert hearts.count("red") / len(hearts) < 0.3


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"shapes": ("circle", "blob")}, ("'blob'", "circle")),
        ({"max_objects": 5}, ("max_objects is 5",)),
        ({"weathers": ("fog",)}, ("'weather' needs at least two weathers",)),
        ({"colours": ("red", "blue")}, ("colours has 2 values",)),
        ({"planted": Planted(shape="star", colour="purple")}, ("held out",)),
        ({"planted": Planted(shape="heart", colour="red", share=2)}, ("in [0, 1]",)),
        ({"media": ()}, ("media is empty",)),
        ({"max_objects": 1}, ("'count' needs two objects", "'swap' needs two objects")),
    ],
)
def test_settings_that_cannot_be_drawn_are_refused_with_what_to_do(wrong, words):
    with pytest.raises(ConfigError) as refused:
        WorldSettings(**wrong)
    for word in words:
        assert word in str(refused.value)


def test_an_edit_for_which_the_settings_leave_no_room_is_refused():
    narrow = WorldSettings(
        shapes=("circle", "star"), materials=("dots",), max_objects=1, edit_types=("replace",), colours=("red", "blue")
    )
    with pytest.raises(ConfigError, match="'replace' without a held-out combination"):
        edit_of("replace", 0, narrow)


HEART = SceneObject("heart", "red", 0.25, 0.4, 0.16, material="stripes")
STAR = SceneObject("star", "orange", 0.75, 0.45, 0.11)


def test_materials_weathers_and_media_look_different_from_each_other():
    def distance(one, other):
        return np.abs(render(one, SIZE) - render(other, SIZE)).mean()

    scene = Scene("gray", (replace(HEART, material="plain"), STAR))
    for name, values, least in (("weather", WEATHERS, 0.03), ("medium", MEDIA, 0.01)):
        looks = [replace(scene, **{name: value}) for value in values]
        assert min(distance(a, b) for a in looks for b in looks if a is not b) > least
    things = [Scene("gray", (replace(HEART, material=material),)) for material in MATERIALS]
    assert min(distance(a, b) for a in things for b in things if a is not b) > 0.005


def test_a_pattern_is_the_same_from_left_to_right():
    u, v = np.meshgrid(np.linspace(0.013, 1, 40), np.linspace(-1, 1, 40))
    for material in MATERIALS:
        np.testing.assert_array_equal(pattern(material, u, v), pattern(material, -u, v))
        assert pattern(material, u, v).any() == (material != "plain")


def test_a_picture_takes_a_few_milliseconds():
    scenes = [random_world_scene(random.Random(seed), FULL) for seed in range(100)]
    for scene in scenes:
        render(scene, 64)
    start = time.process_time()
    for scene in scenes:
        render(scene, 64)
    assert (time.process_time() - start) / len(scenes) < 0.006
