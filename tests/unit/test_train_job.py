from __future__ import annotations

import json

import pytest

from ip2p.ip2p_core.errors import ConfigError
from ip2p.ip2p_core.train_job import PRESETS, make_train_config, read_train_config
from ip2p.ip2p_core.train_progress import ProgressEvent

NEEDED = {"dataset": "pairs", "base": "sd", "output": "run"}


def test_the_preset_paper_is_the_recipe_of_the_paper():
    config = make_train_config(NEEDED)
    assert (config.steps, config.batch_size, config.learning_rate, config.lr_warmup_steps) == (10_000, 1024, 1e-4, 0)
    assert (config.resolution, config.resize, config.flip) == (256, (256, 288), 0.5)
    assert (config.dropout, config.ema_decay, config.train_text_encoder) == (0.05, 0.9999, False)
    assert (config.lr_schedule, config.min_snr_gamma, config.start_share) == ("constant", 0, 0)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_and_a_setting_of_ones_own_wins_over_it(preset):
    assert make_train_config({**NEEDED, "preset": preset}).preset == preset
    assert make_train_config({**NEEDED, "preset": preset, "steps": 7}).steps == 7


def test_all_mistakes_are_said_at_once():
    with pytest.raises(ConfigError) as caught:
        make_train_config({"dataset": "pairs", "base": 3, "lerning_rate": 1e-4})
    assert len(caught.value.mistakes) == 3
    text = str(caught.value)
    assert "'lerning_rate'" in text
    assert "'base' is 3" in text
    assert "'output' is missing" in text


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"batch_size": 10, "micro_batch_size": 4}, "no multiple of micro_batch_size"),
        ({"resize_range": 0.9}, "resize_range is 0.9"),
        ({"dropout": 0.5}, "dropout is 0.5"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"train_text_encoder": True, "lora_rank": 4}, "train_text_encoder"),
        ({"preset": "papre"}, "no preset 'papre'"),
    ],
)
def test_values_out_of_range_are_named(changes, word):
    with pytest.raises(ConfigError, match=word):
        make_train_config({**NEEDED, **changes})


def test_settings_come_from_a_file_and_from_overrides(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**NEEDED, "preset": "lora"}))
    config = read_train_config(path, ["steps=5", "base=other"])
    assert (config.steps, config.base, config.lora_rank) == (5, "other", 64)


def test_how_a_run_is_done_does_not_change_what_it_is():
    one = make_train_config(NEEDED)
    other = make_train_config({**NEEDED, "output": "elsewhere", "workers": 4, "checkpoint_steps": 7, "device": "cpu"})
    assert one.identity() == other.identity()
    assert one.identity() != make_train_config({**NEEDED, "seed": 1}).identity()


def test_an_event_is_one_line_that_can_be_read_again():
    event = ProgressEvent(kind="step", step=3, steps=9, loss=0.5)
    assert "\n" not in event.to_json()
    assert ProgressEvent.from_json(event.to_json()) == event
    with pytest.raises(ValueError, match="no progress event"):
        ProgressEvent.from_json('{"other": 1}')
