"""The judge of attributes: what it decides from marks, what it learns, its file, and verdicts on edited pictures."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from ip2p.ip2p_core.checkpoint_files import read_metadata
from ip2p.ip2p_core.errors import CheckpointError, ModelMismatch, PairStoreError
from ip2p.trainer.shape_world.attribute_judge import (
    CONFIG_KEY,
    RADIUS_UNIT,
    AttributeJudge,
    JudgeNetwork,
    Reading,
    Seen,
    SeenShape,
    decode,
)
from ip2p.trainer.shape_world.edit_verdicts import (
    ATTRIBUTES,
    accuracy_by_type,
    edit_accuracy,
    facts_of,
    is_fact_right,
    judge_edit,
    verdict_of,
)
from ip2p.trainer.shape_world.judge_training import (
    JudgePlan,
    loss_of,
    measure_judge,
    render_batch,
    rescaled,
    scenes_at,
    targets_of,
    train_judge,
    worsen,
)
from ip2p.trainer.shape_world.render import render
from ip2p.trainer.shape_world.scene import BACKGROUNDS, MATERIALS, MEDIA, PALETTE, SHAPES, WEATHERS, Scene, SceneObject
from ip2p.trainer.shape_world.world import groups_of
from ip2p.trainer.shape_world.world_edits import random_world_edit
from ip2p.trainer.shape_world.world_settings import FULL, SMALL
from ip2p.trainer.shape_world.world_wordings import WORLD_EDIT_TYPES


def perfect_reading(scenes):
    """What a network that has learnt everything would say."""
    targets = targets_of(scenes)
    marks = torch.logit(targets.marks, 1e-6)
    colours, materials = (
        torch.nn.functional.one_hot(named, len(known)).movedim(-1, 1).float() * 9
        for named, known in ((targets.colours, PALETTE), (targets.materials, MATERIALS))
    )
    looks = [
        torch.nn.functional.one_hot(targets.looks[:, i], len(known)).float() * 9
        for i, known in enumerate((BACKGROUNDS, WEATHERS, MEDIA))
    ]
    return Reading(marks, colours, materials, targets.radii, tuple(looks))


def seen_of(scene):
    """A picture of the scene as a judge without fault sees it."""
    shapes = {
        group.shape: SeenShape(
            group.number,
            group.first.colour,
            group.first.material,
            sum(one.radius for one in group.objects) / group.number,
            group.centre,
        )
        for group in groups_of(scene)
    }
    return Seen(scene.background, scene.weather, scene.medium, shapes)


def edit_of(edit_type, seed, settings=FULL):
    return random_world_edit(random.Random(f"verdict/{edit_type}/{seed}"), settings, edit_type, allow_held_out=True)


def test_from_perfect_marks_every_fact_of_every_scene_is_read():
    scenes = scenes_at("decode", 0, range(100), FULL)
    reading = perfect_reading(scenes)
    for scene, seen in zip(scenes, decode(reading), strict=True):
        wrong = [fact for fact, value in facts_of(scene).items() if not is_fact_right(fact, value, seen)]
        assert wrong == []
        assert set(seen.shapes) == {one.shape for one in scene.objects}
        for one, group in ((seen.shapes[group.shape], group) for group in groups_of(scene)):
            assert one.centre == pytest.approx(group.centre, abs=0.02)
            assert one.size == group.first.size


def test_the_loss_is_least_for_a_perfect_reading():
    scenes = scenes_at("loss", 0, range(6), FULL)
    targets, reading = targets_of(scenes), perfect_reading(scenes)
    best = loss_of(reading, targets)
    assert best < 0.1
    for other in (
        reading._replace(marks=reading.marks.roll(1, 1)),
        reading._replace(colours=reading.colours.roll(1, 1)),
        reading._replace(materials=reading.materials.roll(1, 1)),
        reading._replace(radii=reading.radii + 0.2),
        reading._replace(looks=(reading.looks[0].roll(1, 1), *reading.looks[1:])),
    ):
        assert loss_of(other, targets) > best + 0.5


def test_nothing_is_seen_where_no_mark_stands_out():
    (seen,) = decode(perfect_reading([Scene("white", ())]))
    assert (seen.background, seen.shapes) == ("white", {})


def test_an_object_between_two_shapes_is_one_object_of_the_likelier_shape():
    reading = perfect_reading([Scene("white", (SceneObject("square", "red", 0.4, 0.6, 0.15),))])
    square, circle = SHAPES.index("square"), SHAPES.index("circle")
    marks = reading.marks.sigmoid()
    marks[:, circle] = 0.3 * marks[:, square]
    marks[:, square] *= 0.35
    (seen,) = decode(reading._replace(marks=torch.logit(marks, 1e-6)))
    assert {shape: one.number for shape, one in seen.shapes.items()} == {"square": 1}
    assert seen.shapes["square"].centre == pytest.approx((0.4, 0.6), abs=0.02)


def test_radii_are_given_in_fractions_of_the_side():
    thing = SceneObject("star", "red", 0.5, 0.5, RADIUS_UNIT * 1.1)
    (seen,) = decode(perfect_reading([Scene("white", (thing,))]))
    assert seen.shapes["star"].radius == pytest.approx(thing.radius, rel=1e-4)


@pytest.mark.parametrize("edit_type", WORLD_EDIT_TYPES)
@pytest.mark.parametrize("seed", range(5))
def test_the_exact_target_is_a_done_edit_with_all_else_kept_and_the_input_is_not(edit_type, seed):
    edit = edit_of(edit_type, seed)
    target, same = verdict_of(edit, seen_of(edit.after)), verdict_of(edit, seen_of(edit.before))
    assert target.is_edited
    assert target.is_kept
    assert not same.is_edited
    if edit_type != "viewpoint":
        assert same.is_kept or edit_type == "swap"


@pytest.mark.parametrize("seed", range(5))
def test_what_a_replacement_keeps_does_not_hang_on_the_shape_that_came_out(seed):
    edit = edit_of("replace", seed)
    seen, new = seen_of(edit.after), edit.change.subjects[1]
    third = next(name for name in SHAPES if name not in {*seen.shapes, *edit.change.subjects})

    def came_out(name, one):
        return seen._replace(shapes={**{s: kept for s, kept in seen.shapes.items() if s != new}, name: one})

    whole = seen.shapes[new]
    verdict = verdict_of(edit, came_out(third, whole))
    assert (verdict.is_edited, verdict.is_kept) == (False, True)
    other_colour = next(colour for colour in PALETTE if colour != whole.colour)
    verdict = verdict_of(edit, came_out(third, whole._replace(colour=other_colour)))
    assert [name for name, right in verdict.kept.items() if not right] == ["colour"]
    gone = seen._replace(shapes={shape: one for shape, one in seen.shapes.items() if shape != new})
    assert not verdict_of(edit, gone).is_kept
    both = seen._replace(shapes={**gone.shapes, third: whole, edit.change.subjects[0]: whole})
    assert not verdict_of(edit, both).is_kept


def test_a_side_effect_is_charged_to_its_attribute_alone():
    edit = edit_of("recolour", 0)
    seen = seen_of(edit.after)
    other_ground = next(name for name in BACKGROUNDS if name != seen.background)
    verdict = verdict_of(edit, seen._replace(background=other_ground))
    assert verdict.is_edited
    assert [name for name, right in verdict.kept.items() if not right] == ["background"]
    (shape,) = edit.change.subjects
    changed = seen.shapes[shape]._replace(material=next(m for m in MATERIALS if m != seen.shapes[shape].material))
    verdict = verdict_of(edit, seen._replace(shapes={**seen.shapes, shape: changed}))
    assert [name for name, right in verdict.kept.items() if not right] == ["material"]
    extra = next(name for name in SHAPES if name not in seen.shapes)
    verdict = verdict_of(edit, seen._replace(shapes={**seen.shapes, extra: changed}))
    assert [name for name, right in verdict.kept.items() if not right] == ["number"]


def test_where_an_added_object_stands_is_left_open_and_where_a_moved_one_stands_is_not():
    for edit_type, is_right in (("add", True), ("count", True), ("move", False), ("swap", False)):
        edit = edit_of(edit_type, 1)
        seen, shape = seen_of(edit.after), edit.change.subjects[0]
        away = seen.shapes[shape]._replace(centre=(seen.shapes[shape].centre[0] + 0.2, seen.shapes[shape].centre[1]))
        verdict = verdict_of(edit, seen._replace(shapes={**seen.shapes, shape: away}))
        assert verdict.is_edited is is_right
        assert verdict.is_kept


def test_accuracies_are_shares_of_the_verdicts():
    edits = [edit_of(edit_type, seed) for edit_type in ("recolour", "count") for seed in range(4)]
    verdicts = [verdict_of(edit, seen_of(edit.after if i % 4 else edit.before)) for i, edit in enumerate(edits)]
    total, types = edit_accuracy(verdicts), accuracy_by_type(edits, verdicts)
    assert (total.num_edits, total.edited, total.kept, total.both) == (8, 0.75, 1.0, 0.75)
    assert set(total.kept_attributes) == set(ATTRIBUTES)
    assert {name: one.edited for name, one in types.items()} == {"recolour": 0.75, "count": 0.75}


def test_worsening_keeps_the_range_and_a_part_of_the_pictures_and_what_they_show():
    pictures = render_batch(scenes_at("worse", 0, range(40), SMALL))
    worse = worsen(pictures, torch.Generator().manual_seed(0))
    assert 0 <= worse.min() <= worse.max() <= 1
    away = (worse - pictures).abs().mean((1, 2, 3))
    assert 12 <= (away == 0).sum() <= 44  # a third of 80
    assert 0.01 < away[away > 0].mean() < 0.1
    torch.testing.assert_close(worse, worsen(pictures, torch.Generator().manual_seed(0)))


def test_scaling_keeps_objects_inside_and_their_proportions_and_half_of_the_scenes():
    scenes = scenes_at("scale", 0, range(50), FULL)
    scaled = [rescaled(random.Random(i), scene) for i, scene in enumerate(scenes)]
    assert 40 <= sum(one is same for one, same in zip(scenes, scaled, strict=True)) <= 85
    for scene, other in zip(scenes, scaled, strict=True):
        assert replace(other, objects=scene.objects) == scene
        for one, same in zip(scene.objects, other.objects, strict=True):
            assert same.radius - 1e-9 <= min(same.x, same.y, 1 - same.x, 1 - same.y) or other is scene
            ratio = other.objects[0].radius / scene.objects[0].radius
            across = (one.x - scene.objects[0].x) * ratio, same.x - other.objects[0].x
            assert (same.radius, across[0]) == pytest.approx((one.radius * ratio, across[1]))


def test_a_judge_learns_in_seconds_what_its_world_looks_like_and_its_file_says_the_same(tmp_path):
    plan = JudgePlan(settings=SMALL, max_steps=100, edits_per_batch=6, width=16, depth=1)
    path = tmp_path / "judge.safetensors"
    judge = train_judge(path, plan)
    assert [one.name for one in tmp_path.iterdir()] == ["judge.safetensors"]
    accuracies = measure_judge(judge, SMALL, num_edits=60)
    assert accuracies["background"] > 0.5  # by chance 0.2
    pictures = [render(scene, 64) for scene in scenes_at("file", 0, range(5), SMALL)]
    assert AttributeJudge.from_file(path).judge(pictures) == judge.judge(pictures)


def test_a_training_whose_file_could_not_be_written_goes_on_from_its_state(tmp_path):
    plan = JudgePlan(settings=SMALL, max_steps=8, edits_per_batch=2, width=8, depth=1)
    path = tmp_path / "judge.safetensors"
    path.mkdir()
    with pytest.raises(PairStoreError):
        train_judge(path, plan)
    saved = torch.load(tmp_path / "judge.state.pt", weights_only=True)  # noqa: TID251
    path.rmdir()
    train_judge(path, plan)
    weights = AttributeJudge.from_file(path).network.state_dict()
    torch.testing.assert_close(dict(weights), dict(saved["ema"]))
    assert saved["step"] == 8
    assert "'steps': 8" in json.loads(read_metadata(path)[1][CONFIG_KEY])["recipe"]
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_judge_scales_pictures_of_other_sizes():
    judge = AttributeJudge(JudgeNetwork(8, 1))
    scene = scenes_at("sizes", 0, range(1), SMALL)[0]
    assert len(judge.judge([render(scene, 128), render(scene, 64)])) == 2
    edit = edit_of("background", 0)
    verdict = judge_edit(judge, edit, render(edit.after, 96))
    assert set(verdict.kept) >= {"weather", "medium", "number", "colour"}


def test_files_that_are_no_judge_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelMismatch, match="not a judge"):
        AttributeJudge.from_file(tmp_path / "other.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError):
        AttributeJudge.from_file(tmp_path / "torn.safetensors")


@pytest.mark.soak
def test_after_ten_minutes_of_one_core_the_judge_of_the_small_world_is_right_on_995_of_1000_renders(tmp_path):
    torch.set_num_threads(1)
    judge = train_judge(tmp_path / "judge.safetensors", JudgePlan(settings=SMALL, seconds=600))
    accuracies = measure_judge(judge, SMALL, num_edits=1500)
    assert min(accuracies.values()) >= 0.995, accuracies
    edits = [edit_of(edit_type, seed, SMALL) for edit_type in SMALL.edit_types for seed in range(60)]
    verdicts = [judge_edit(judge, edit, render(edit.after, 64)) for edit in edits]
    assert np.mean([one.is_edited and one.is_kept for one in verdicts]) >= 0.98
