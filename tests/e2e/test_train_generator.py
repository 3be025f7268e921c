"""The embedded generator and CLIP are trained by one command each; here for seconds, which checks wiring, not quality."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from ip2p.ip2p_core.clip_scorer import CLIPScorer
from ip2p.ip2p_core.pair_generation import PairSettings, draw_samples
from ip2p.ip2p_core.triplet import Triplet
from ip2p.trainer.__main__ import main

TRIPLET = Triplet("a red circle on a white background", "make it blue", "a blue circle on a white background")


def test_the_generator_command_ends_in_a_model_that_makes_pairs_and_can_be_measured(tmp_path, capsys):
    from ip2p.trainer.diffusers_adapter import load_generator
    from ip2p.trainer.pair_sampler import PairSampling, sample_pairs

    out = tmp_path / "generator.safetensors"
    assert main(["train-embedded-generator", "-o", str(out), "--run", str(tmp_path / "run"), "--smoke"]) == 0
    model = load_generator(out, device="cpu")
    settings = PairSettings(num_samples=1)
    plan = PairSampling(width=64, height=64, steps=2)
    pictures = sample_pairs(model, draw_samples(TRIPLET, settings, 0), [TRIPLET], settings, plan)
    assert pictures.shape == (2, 64, 64, 3)
    assert out.stat().st_size < 11.62e6
    measuring = ["--pairs", "2", "--steps", "1", "--picture", str(tmp_path / "sharing.png")]
    assert main(["evaluate-embedded-generator", "--model", str(out), *measuring]) == 0
    assert capsys.readouterr().out.count("same shape") == 5, "one line for every way to share"
    assert (tmp_path / "sharing.png").stat().st_size > 0


def test_the_embedded_generator_draws_what_captions_say_and_sharing_keeps_more_of_the_original():
    from ip2p.ip2p_core.checkpoint import embedded_model_path
    from ip2p.trainer import evaluate_generator as measure
    from ip2p.trainer.diffusers_adapter import load_generator

    model = load_generator(embedded_model_path("generator"), device="cpu")
    scorer = CLIPScorer.from_file(embedded_model_path("clip"))
    edits = measure.held_out_recolourings(4)
    plain, shared, both = (
        measure.make_pairs(model, edits, name) for name in ("nothing shared", "self-attention, p 0.9", "both, p 0.4")
    )
    rights = measure.evaluate_captions(plain[:, 0], edits)
    assert rights["background"] == rights["colour"] == 1
    assert rights["shape"] >= 0.75
    found = [measure.evaluate_pairs(pairs, edits, scorer) for pairs in (plain, shared, both)]
    outside, overlap = ([one[name] for one in found] for name in ("outside", "overlap"))
    assert max(outside[1:]) < outside[0]
    assert overlap == sorted(overlap)
    assert overlap[-1] > 0.75
    assert found[-1]["same place"] == found[-1]["same shape"] == found[-1]["new colour"] == 1


def test_the_embedded_generator_and_clip_take_at_most_15_mb():
    from ip2p.ip2p_core.checkpoint import embedded_model_path

    assert sum(embedded_model_path(name).stat().st_size for name in ("generator", "clip")) <= 15e6


def test_the_clip_command_ends_in_a_scorer_and_its_measure(tmp_path, capsys):
    out = tmp_path / "clip.safetensors"
    assert main(["train-embedded-clip", "-o", str(out), "--run", str(tmp_path / "run"), "--smoke"]) == 0
    assert "right one of two ranked first, recolour" in capsys.readouterr().out
    assert out.stat().st_size < 4e6
    scorer = CLIPScorer.from_file(out)
    features = scorer.embed_texts(["a red circle", "a blue circle"])
    assert float(features[0] @ features[1]) < 1 - 1e-4


@pytest.mark.parametrize("command", ["train-embedded-generator", "train-embedded-clip"])
def test_a_second_run_goes_on_where_the_first_ended(tmp_path, command, caplog):
    arguments = [command, "-o", str(tmp_path / "out.safetensors"), "--run", str(tmp_path / "run"), "--smoke"]
    main(arguments)
    first = load_file(tmp_path / "out.safetensors")
    main(arguments)
    second = load_file(tmp_path / "out.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first.keys() | second.keys())
