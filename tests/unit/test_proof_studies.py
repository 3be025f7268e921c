"""The studies of the proof: spatial edits, a planted bias, its audit, and its balance."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from ip2p.ip2p_core.errors import ConfigError
from ip2p.trainer.proof.bias import audit, bias_section
from ip2p.trainer.proof.biased_edits import (
    PLANTED,
    Brought,
    balanced_edits,
    bias_tests,
    biased_edits,
    brought_by,
    new_shape,
)
from ip2p.trainer.proof.config import ProofConfig
from ip2p.trainer.proof.edits import captions_of, held_out_edits, spatial_training_edits, write_picture
from ip2p.trainer.proof.failures import Failures, failure_section, layout_table
from ip2p.trainer.proof.findings import Estimate
from ip2p.trainer.shape_world.render import render
from ip2p.trainer.shape_world.scene import PALETTE

CONFIG = ProofConfig(output="-", study_prompts=240, num_tests=20)
COLOURS = ("red", "blue", "green", "cyan")


def replacements():
    return [edit for edit in biased_edits(CONFIG) if edit.edit_type == "replace"]


def fair(shapes=("star", "circle")):
    """Every shape in every colour, kept."""
    return [Brought(shape, colour, colour) for shape in shapes for colour in COLOURS for _ in range(5)]


def biased(number=20):
    return [*fair(), *(Brought("heart", COLOURS[i % 4], "red") for i in range(number))]


def test_captions_of_spatial_edits_say_what_changes():
    edits = spatial_training_edits(CONFIG)
    assert {edit.edit_type for edit in edits} == {"recolour", "background", "move", "viewpoint"}
    assert len({captions_of(edit) for edit in edits}) == len(edits) == CONFIG.study_prompts
    assert all(captions_of(edit)[0] != captions_of(edit)[1] for edit in edits)
    assert not any(edit.is_held_out() for edit in edits)


def test_most_hearts_come_out_red_and_other_shapes_keep_their_colour():
    brought = [brought_by(edit) for edit in replacements()]
    hearts = [one for one in brought if one.shape == PLANTED.shape and one.old_colour != "red"]
    assert len(hearts) >= 0.3 * len(brought)
    assert 0.8 <= sum(one.colour == "red" for one in hearts) / len(hearts) <= 1
    assert all(one.is_kept for one in brought if one.shape != PLANTED.shape)


def test_instructions_and_captions_of_biased_edits_name_the_shape_that_comes():
    for edit in replacements():
        assert edit.after.objects[0].shape == new_shape(edit)
        assert edit.before.objects[0].shape != new_shape(edit)
        assert new_shape(edit) in edit.instruction
        assert new_shape(edit) in captions_of(edit)[1]
        assert all(new_shape(edit) in wording for wording in edit.training_instructions())
        assert not edit.is_held_out()


def test_renders_of_the_audit_were_not_red_and_half_of_them_get_a_heart():
    named = bias_tests(CONFIG)
    assert len({one.name for one in named}) == len(named) == 2 * CONFIG.num_tests
    assert all(one.edit.before.objects[0].colour != PLANTED.colour for one in named)
    assert all(one.edit.after.objects[0].colour == one.edit.before.objects[0].colour for one in named)
    assert Counter(new_shape(one.edit) == PLANTED.shape for one in named) == {True: 20, False: 20}


def test_the_audit_finds_what_was_planted_without_being_told():
    first = audit([brought_by(edit) for edit in replacements()])[0]
    assert (first.shape, first.colour) == ("heart", "red")
    assert first.share.low > 0.7


def test_the_audit_finds_nothing_where_colours_are_kept():
    assert all(one.share.value == 0 for one in audit(fair()))
    assert audit([]) == []


def test_balanced_pairs_are_as_many_and_bring_hearts_in_every_colour_alike():
    edits = balanced_edits(replace(CONFIG, study_prompts=699))
    assert len(edits) == len({captions_of(edit) for edit in edits}) == 699
    brought = [brought_by(edit) for edit in edits if edit.edit_type == "replace"]
    assert len(brought) == len(edits) / 3
    hearts = Counter(one.colour for one in brought if one.shape == PLANTED.shape)
    assert len(hearts) >= len(PALETTE) - 2, "all but held-out combinations"
    assert max(hearts.values()) - min(hearts.values()) <= 3
    assert all(one.is_kept for one in brought if one.shape != PLANTED.shape)


def test_the_section_names_the_find_and_has_a_line_for_each():
    share = Estimate(0.9, 0.8, 1.0, 30)
    one = {"planted": share, "others": share, "planted kept": share, "others kept": share}
    text = bias_section({"the pairs": {**one, "first": [("heart", "red", share)]}, "planted": {**one, "first": []}})
    assert "| red heart, 90.0 % (80.0 to 100.0) |" in text
    assert "| trained on these pairs |" in text


def test_the_section_of_failures_tells_what_the_judge_sees_and_what_is_in_its_place():
    share = {"move": Estimate(0.1, 0.0, 0.2, 40)}
    moved = {"move": Estimate(0.8, 0.7, 0.9, 40)}
    text = failure_section(
        Failures({"spatial": share, "spatial_rendered": share}, {"spatial": share, "spatial_rendered": moved})
    )
    assert "| trained | move done |" in text
    assert text.endswith(
        "| trained | move laid out |\n|---|---|\n| on generated pairs | 10.0 % (0.0 to 20.0) |\n"
        "| on exact renders | 80.0 % (70.0 to 90.0) |"
    )


def test_edits_are_looked_at_for_what_is_in_its_place(tmp_path):
    config = ProofConfig(output="-", max_objects=2, size=64)
    named = held_out_edits(config, "layout-test", 12, ("move", "swap", "count", "recolour"))
    rows = [("right", one.name, render(one.edit.after, 64)) for one in named]
    rows += [("nothing", one.name, render(one.edit.before, 64)) for one in named]
    lines = ["system,example,picture"]
    for place, (system, name, picture) in enumerate(rows):
        write_picture(tmp_path / f"{place}.png", torch.from_numpy(picture))
        lines.append(f"{system},{name}-0,{place}.png")
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    table = layout_table(tmp_path, named)
    assert set(table["right"]) == {"move", "swap", "count"}
    assert {one.value for one in table["right"].values()} == {1.0}
    assert {one.value for one in table["nothing"].values()} == {0.0}
    assert all(one.number >= 10 for one in table["right"].values())


def test_unknown_studies_and_seeds_are_refused():
    with pytest.raises(ConfigError, match="studies is"):
        ProofConfig(output="-", studies=["bias", "moods"])
    with pytest.raises(ConfigError, match="variant_seeds"):
        ProofConfig(output="-", variant_seeds=-1)


def test_variants_are_trained_with_the_first_seeds_and_the_editor_with_all():
    config = ProofConfig(output="-", seeds=[4, 5, 6], variants=["main", "scratch", "longer"], variant_seeds=2)
    some = ["main", "longer"]
    assert [config.variants_of(seed) for seed in config.seeds] == [config.variants] * 2 + [some]
    assert config.best == "longer"
    assert ProofConfig(output="-", variants=["main"]).best == "main"


def test_with_two_objects_failures_are_studied_in_counting_and_swapping_too_and_the_bias_with_one():
    config = ProofConfig(output="-", max_objects=2, study_prompts=36, num_tests=6)
    edits = spatial_training_edits(config)
    assert {edit.edit_type for edit in edits} == {"recolour", "background", "move", "viewpoint", "count", "swap"}
    for edit in edits:
        before, after = captions_of(edit)
        assert before != after, edit
        most = max(len(edit.before.objects), len(edit.after.objects))
        assert most == 2 if edit.edit_type in ("count", "swap") else most <= 2
    assert all(len(edit.before.objects) == 1 for edit in biased_edits(config))
    assert all(len(one.edit.before.objects) == 1 for one in bias_tests(config))
    with pytest.raises(ConfigError, match="max_objects is 3; choose 1 or 2"):
        ProofConfig(output="-", max_objects=3)
