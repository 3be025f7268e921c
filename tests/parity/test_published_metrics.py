"""Our numbers are those of the published evaluation programs: MagicBrush's image_eval.py and PnPInversion's (PIE-Bench).

The references are written after those programs, on torchvision, torchmetrics and scipy as they are, with tiny encoders.
"""

from __future__ import annotations

from pathlib import Path

import numpy
import open_clip
import pytest
import torch
from scipy import spatial
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
from torchmetrics.regression import MeanSquaredError
from torchvision import transforms
from torchvision.models import squeezenet1_1
from transformers import ViTConfig, ViTModel

from ip2p.ip2p_core.clip_scorer import OPENAI_MEAN, OPENAI_STD
from ip2p.ip2p_core.image_tensor import to_pil
from ip2p.ip2p_core.pair_record import ImageBytes, encode_png
from ip2p.tests.tiny_clip import tiny_clip, tiny_scorer
from ip2p.trainer.evaluation.config import EvaluateConfig
from ip2p.trainer.evaluation.examples import Example
from ip2p.trainer.evaluation.metrics import Metrics

TOLERANCE = 1e-5
CAPTION = "a photo of a cat on a red sofa"


def picture(height: int, width: int, seed: int) -> torch.Tensor:
    """Smooth and 8 bit, as files are."""
    coarse = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    return (smooth.movedim(0, -1) * 255).round() / 255


BEFORE, AFTER, TARGET = (picture(70, 96, seed) for seed in (1, 2, 3))
MASK = torch.zeros(70, 96)
MASK[10:50, 20:60] = 1


def handle(image: torch.Tensor) -> ImageBytes:
    return ImageBytes(encode_png(to_pil(image)))


EXAMPLE = Example(
    key="one",
    image=handle(BEFORE),
    size=(96, 70),
    instruction="add a cat",
    caption="a photo of a red sofa",
    edited_caption=CAPTION,
    target=handle(TARGET),
    mask=handle(MASK),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny encoders: CLIP, DINO's architecture, and the network of LPIPS in torch's cache."""
    path = tmp_path_factory.mktemp("encoders")
    tiny_scorer(path / "tiny_clip.safetensors")
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96, image_size=32, patch_size=8
    )
    model = ViTModel(config, add_pooling_layer=False)
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.3)
    model.save_pretrained(path / "dino")
    (path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(squeezenet1_1().state_dict(), path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth")
    return path


@pytest.fixture
def measure(folder, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(folder))

    def run(**changes):
        settings = {
            "examples": "-",
            "output": "-",
            "models": str(folder),
            "scorer": "tiny_clip",
            "dino": str(folder / "dino"),
        }
        metrics = Metrics.load(EvaluateConfig(**settings, lpips="squeeze", device="cpu", **changes))
        assert metrics.skipped == {}
        return metrics.measure([EXAMPLE], BEFORE[None], AFTER[None])[0]

    return run


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return 1 - spatial.distance.cosine(one.detach().numpy(), other.detach().numpy())


@torch.no_grad()
def test_magicbrush(measure, folder):
    found = measure(clip_preprocessing="clip")
    generated, truth = to_pil(AFTER), to_pil(TARGET)
    tensors = [transforms.ToTensor()(one) for one in (generated, truth)]
    assert found["target_l1"] == pytest.approx(float(torch.nn.L1Loss()(*tensors)), abs=TOLERANCE)
    assert found["target_l2"] == pytest.approx(float(torch.nn.MSELoss()(*tensors)), abs=TOLERANCE)
    clip_transform = transforms.Compose(
        [
            transforms.Resize(32, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize(OPENAI_MEAN, OPENAI_STD),
        ]
    )
    clip = tiny_clip()
    features = [clip.encode_image(clip_transform(one)[None])[0] for one in (generated, truth)]
    assert found["target_image"] == pytest.approx(cosine(*features), abs=TOLERANCE)
    text = clip.encode_text(open_clip.tokenize([CAPTION]))[0]
    assert found["caption_1"] == pytest.approx(cosine(features[0], text), abs=TOLERANCE)
    dino_transform = transforms.Compose(
        [
            transforms.Resize(round(32 * 256 / 224), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    dino = ViTModel.from_pretrained(folder / "dino", add_pooling_layer=False).eval()
    tokens = [dino(dino_transform(one)[None]).last_hidden_state[0, 0] for one in (generated, truth)]
    assert found["target_dino"] == pytest.approx(cosine(*tokens), abs=TOLERANCE)
    assert abs(found["target_dino"] - found["dino"]) > 1e-4, "the case shows nothing"


@pytest.mark.filterwarnings("ignore:.*PeakSignalNoiseRatio:UserWarning")
@pytest.mark.parametrize("part", ["outside", "inside"])
def test_pie_bench_parts(measure, part):
    found = measure(masking="multiply")
    mask = (1 - MASK if part == "outside" else MASK).numpy()[..., None].repeat(3, 2).astype(numpy.float32)
    pair = [numpy.array(to_pil(one)).astype(numpy.float32) / 255 * mask for one in (AFTER, BEFORE)]
    predicted, truth = (torch.tensor(one).permute(2, 0, 1)[None] for one in pair)
    expected = {
        "psnr": PeakSignalNoiseRatio(data_range=1.0)(predicted, truth),
        "l2": MeanSquaredError()(predicted.contiguous(), truth.contiguous()),
        "ssim": StructuralSimilarityIndexMeasure(data_range=1.0)(predicted, truth),
        "lpips": LearnedPerceptualImagePatchSimilarity(net_type="squeeze")(predicted * 2 - 1, truth * 2 - 1),
    }
    for name, value in expected.items():
        assert found[f"{name}_{part}"] == pytest.approx(float(value), rel=TOLERANCE, abs=TOLERANCE), name


@torch.no_grad()
def test_pie_bench_structure(measure, folder):
    """The reference takes the keys of the last block, here computed from the state before it."""
    dino = ViTModel.from_pretrained(folder / "dino", add_pooling_layer=False).eval()
    transform = transforms.Compose(
        [transforms.Resize(32, max_size=480), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    )

    def self_similarity(image: torch.Tensor) -> torch.Tensor:
        pixels = torch.from_numpy(numpy.array(to_pil(image)).astype(numpy.float32)).permute(2, 0, 1)
        states = dino(transform(pixels)[None], output_hidden_states=True, interpolate_pos_encoding=True).hidden_states
        last = dino.layers[-1]
        keys = last.attention.k_proj(last.layernorm_before(states[-2]))[0]
        norm = keys.norm(dim=1, keepdim=True)
        return (keys @ keys.T) / torch.clamp(norm @ norm.T, min=1e-8)

    expected = torch.nn.functional.mse_loss(self_similarity(AFTER), self_similarity(BEFORE))
    assert measure()["structure"] == pytest.approx(float(expected), rel=1e-4, abs=TOLERANCE)
    assert expected > 1e-3


@torch.no_grad()
def test_pie_bench_clip_score_of_the_edited_part(measure):
    """The cosine; torchmetrics' CLIPScore is 100 times that, which test_clip_scores.py shows."""
    pixels = numpy.uint8(numpy.array(to_pil(AFTER)) * MASK.numpy()[..., None])
    transform = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.Resize(32, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize(OPENAI_MEAN, OPENAI_STD),
        ]
    )
    clip = tiny_clip()
    expected = cosine(clip.encode_image(transform(pixels)[None])[0], clip.encode_text(open_clip.tokenize([CAPTION]))[0])
    found = measure(clip_preprocessing="clip")
    assert found["caption_1_inside"] == pytest.approx(expected, abs=TOLERANCE)
    assert abs(found["caption_1_inside"] - found["caption_1"]) > 1e-3, "the case shows nothing"
