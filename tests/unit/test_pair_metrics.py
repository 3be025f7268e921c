"""What is measured of an edit, and what is said of that which is not."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch

from ip2p.ip2p_core.clip_scorer import CLIPScorer
from ip2p.ip2p_core.errors import BadImage, BadImageSize, ConfigError
from ip2p.ip2p_core.metrics_report import NAMES, report_metrics
from ip2p.ip2p_core.pair_metrics import EditContext, PairMetrics, missing_ssim, require_alike
from ip2p.ip2p_core.picture_metrics import l1
from ip2p.tests.tiny_clip import tiny_scorer

PICTURES = torch.rand(3, 24, 32, 3, generator=torch.Generator().manual_seed(0))
BEFORE, AFTER, TARGET = (one[None] for one in PICTURES)
MASK = torch.zeros(24, 32)
MASK[4:12, 8:20] = 1
FULL = EditContext("make it blue", "a red square", "a blue square", MASK, TARGET[0])


@pytest.fixture(scope="module")
def scorer(tmp_path_factory) -> CLIPScorer:
    path = tmp_path_factory.mktemp("clip") / "scorer.safetensors"
    tiny_scorer(path)
    return CLIPScorer.from_file(path)


def test_with_everything_known_every_metric_is_there_and_is_what_its_formula_says(scorer):
    metrics = PairMetrics(scorer)
    (found,) = metrics.measure(BEFORE, AFTER, [FULL])
    assert set(found) == set(NAMES)
    assert report_metrics(metrics, [found], [FULL], (32, 24)).skipped == {}
    assert found["l1"] == pytest.approx(float(l1(BEFORE, AFTER)))
    assert found["l1_inside"] == pytest.approx(float((BEFORE - AFTER)[0, 4:12, 8:20].abs().mean()), rel=1e-5)
    assert found["target_l1"] == pytest.approx(float(l1(TARGET, AFTER)))
    (pair,) = scorer.score(BEFORE, AFTER, ["a red square"], ["a blue square"])
    assert {name: found[name] for name in pair._fields} == pytest.approx(pair._asdict(), abs=1e-5)
    match = scorer.embed_images(AFTER)[0] @ scorer.embed_texts(["make it blue"])[0]
    assert found["instruction_match"] == pytest.approx(float(match), abs=1e-5)


def test_features_that_are_there_already_are_taken(scorer):
    metrics = PairMetrics(scorer)
    (found,) = metrics.measure(BEFORE, AFTER, [EditContext()], metrics.embed(AFTER))
    assert found["image"] == pytest.approx(1, abs=1e-5)


def test_other_comparisons_are_columns_of_the_pair_and_of_the_target():
    metrics = PairMetrics(more=lambda a, b: {"first": a[:, 0, 0, 0] + 10 * b[:, 0, 0, 0]})
    (found,) = metrics.measure(BEFORE, AFTER, [EditContext(target=TARGET[0])])
    assert found["first"] == pytest.approx(float(BEFORE[0, 0, 0, 0] + 10 * AFTER[0, 0, 0, 0]))
    assert found["target_first"] == pytest.approx(float(TARGET[0, 0, 0, 0] + 10 * AFTER[0, 0, 0, 0]))


@pytest.mark.parametrize(
    ("context", "has_scorer", "name", "reason"),
    [
        (FULL, False, "directional", "no scorer is connected"),
        (FULL, False, "target_image", "no scorer is connected"),
        (FULL._replace(edited_caption=""), True, "directional", "caption and edited_caption are needed, both"),
        (FULL._replace(edited_caption=""), True, "caption_1_inside", "edited_caption is empty"),
        (FULL._replace(instruction=""), True, "instruction_match", "the instruction is empty"),
        (FULL._replace(mask=None), True, "psnr_outside", "no mask is connected"),
        (FULL._replace(mask=torch.ones(24, 32)), True, "l1_outside", "the mask covers the whole picture"),
        (FULL._replace(mask=torch.zeros(24, 32)), True, "l1_inside", "the mask is empty"),
        (FULL._replace(target=None), True, "target_ssim", "no target is connected"),
    ],
)
def test_what_is_missing_is_skipped_by_name_with_the_reason(scorer, context, has_scorer, name, reason):
    metrics = PairMetrics(scorer if has_scorer else None)
    scores = metrics.measure(BEFORE, AFTER, [context])
    report = report_metrics(metrics, scores, [context], (32, 24))
    assert report.skipped[name] == reason
    assert set(report.names) | set(report.skipped) == set(NAMES)
    assert name not in report.table()


def test_without_torchmetrics_ssim_says_what_to_install(monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "torchmetrics"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    assert "pip install torchmetrics" in missing_ssim()
    metrics = PairMetrics(has_ssim=not missing_ssim())
    scores = metrics.measure(BEFORE, AFTER, [FULL])
    report = report_metrics(metrics, scores, [FULL], (32, 24))
    assert "pip install torchmetrics" in report.skipped["ssim"]
    assert "pip install torchmetrics" in report.skipped["ssim_inside"]
    assert "l1" in report.names


def test_pictures_smaller_than_the_window_of_ssim_have_none():
    small = BEFORE[:, :8], AFTER[:, :8]
    metrics = PairMetrics()
    report = report_metrics(metrics, metrics.measure(*small, [EditContext()]), [EditContext()], (32, 8))
    assert report.skipped["ssim"] == "SSIM needs 11 pixels on every side"


def test_a_metric_that_some_pictures_lack_is_averaged_over_the_others_and_named():
    contexts = [EditContext(mask=MASK), EditContext(mask=torch.zeros(24, 32))]
    originals, editeds = torch.cat([BEFORE, BEFORE]), torch.cat([AFTER, BEFORE])
    metrics = PairMetrics()
    report = report_metrics(metrics, metrics.measure(originals, editeds, contexts), contexts, (32, 24))
    assert report.skipped["l1_inside"] == "pictures 2: the mask is empty"
    assert report.mean("l1_inside") == report.scores[0]["l1_inside"]
    header, first, second, mean = (line.split("\t") for line in report.table().splitlines())
    place = header.index("l1_inside")
    assert (first[place], second[place], mean[place]) == (first[place], "-", first[place])
    assert math.isinf(report.scores[1]["psnr"])
    record = json.loads(report.json())
    assert record["pictures"][1]["psnr"] is None
    assert record["mean"]["l1"] == pytest.approx(report.scores[0]["l1"] / 2)


def test_the_report_names_the_encoder_and_how_pictures_come_to_its_size(scorer):
    contexts = [EditContext()]
    for preprocessing, words in (("published_code", "no antialias"), ("clip", "middle cut out")):
        metrics = PairMetrics(scorer, preprocessing=preprocessing)
        report = report_metrics(metrics, metrics.measure(BEFORE, AFTER, contexts), contexts, (32, 24))
        assert report.record["encoder"]["file"] == "scorer.safetensors"
        assert report.record["encoder"]["architecture"] == scorer.config.model_cfg
        assert words in report.record["encoder"]["preprocessing"]


@pytest.mark.parametrize(
    ("after", "error", "words"),
    [
        (PICTURES, ConfigError, "1 of 32x24 on 'before' and 3 of 32x24 on 'after'"),
        (AFTER[:, :, :20], BadImageSize, "1 of 32x24 on 'before' and 1 of 20x24 on 'after'"),
        (AFTER.where(AFTER < 0.9, math.nan), BadImage, "Picture 1 on 'after' holds values that are no finite numbers"),
        (AFTER.where(AFTER < 0.9, math.inf), BadImage, "Picture 1 on 'after'"),
    ],
)
def test_pictures_that_cannot_be_compared_are_refused(after, error, words):
    require_alike(before=BEFORE, after=AFTER)
    with pytest.raises(error, match=words):
        require_alike(before=BEFORE, after=after)
