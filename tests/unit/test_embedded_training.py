"""The data and the stages of the embedded editor's training."""

import pytest

from ip2p.ip2p_core.errors import ConfigError, PairStoreError
from ip2p.ip2p_core.pair_store import PairStore
from ip2p.ip2p_core.train_job import TrainConfig
from ip2p.tests.generated_pairs import write_generated
from ip2p.trainer.embedded import pairs
from ip2p.trainer.embedded.command import stage_settings, train
from ip2p.trainer.embedded.pairs import GENERATED_COPIES, write_pairs
from ip2p.trainer.embedded.plan import SMOKE, Plan

SIDES = (32, 48, 64)


@pytest.fixture
def generated(tmp_path):
    """A dataset of 40 prompts in pictures of each of three sizes."""
    return write_generated(tmp_path / "generated", SIDES * 40)


@pytest.mark.parametrize("plan", [Plan(), Plan(precision="bf16"), SMOKE], ids=["full", "bf16", "smoke"])
def test_the_settings_of_every_stage_are_ones_that_the_trainer_takes(plan, tmp_path):
    for stage in plan.stages:
        settings = stage_settings(tmp_path, stage, "base", plan)
        config = TrainConfig(**settings, dataset="pairs", wordings="wordings.json")
        assert (config.resolution, config.compile, config.precision) == (stage.size, stage.is_compiled, plan.precision)


def test_generated_pairs_come_in_several_times_where_they_are_large_enough_and_training_may_see_them(
    generated, tmp_path
):
    for size, sides in ((64, {64}), (40, {48, 64})):
        path = tmp_path / f"pairs_{size}"
        write_pairs(path, seed=0, size=size, num_originals=1, num_scenes=1, generated=generated)
        found = [record for record in PairStore(path).records() if record.mode == "paper_text"]
        wanted = [
            record for record in PairStore(generated).records("train") if record.original.picture().width in sides
        ]
        assert sorted(record.triplet.instruction for record in found) == sorted(
            record.triplet.instruction for record in wanted for _ in range(GENERATED_COPIES)
        )
        assert 0 < len(wanted) < 40 * len(sides), "some are held out"
        assert {record.key for record in found} <= {record.key for record in PairStore(path).records("train")}
        originals = {record.triplet.instruction: record.original.read() for record in wanted}
        assert all(record.original.read() == originals[record.triplet.instruction] for record in found)


def test_a_half_written_dataset_of_an_older_recipe_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr(pairs, "RECIPE", pairs.RECIPE - 1)
        write_pairs(tmp_path / "pairs", seed=0, size=32, num_originals=1, num_scenes=0)
    with pytest.raises(PairStoreError, match="recipe"):
        write_pairs(tmp_path / "pairs", seed=0, size=32, num_originals=1, num_scenes=1)


def test_generated_pairs_that_are_too_small_for_every_stage_are_refused_before_anything_is_trained(generated, tmp_path):
    with pytest.raises(ConfigError, match="no pair for training of at least 128 pixels"):
        train(tmp_path / "run", tmp_path / "out", Plan(stages=Plan().stages[1:]), generated=generated)
    assert not (tmp_path / "run").exists()
