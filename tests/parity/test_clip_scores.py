"""Our scores are those of the published formula, computed by open_clip and by transformers on the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from ip2p.ip2p_core.checkpoint_text_keys import text_from_open_clip
from ip2p.ip2p_core.clip_scorer import OPENAI_MEAN, OPENAI_STD, CLIPScorer
from ip2p.ip2p_core.pair_record import PairScores
from ip2p.tests.tiny_clip import MODEL_CFG, tiny_clip, tiny_scorer

TOLERANCE = 1e-5
CAPTIONS = ["a red square", "a photo of a cat &amp; a dog, café", "Mountains   at NOON!", "word " * 100, ""]
EDITED_CAPTIONS = ["a blue square", "a photo of a cat &amp; a fox, café", "Mountains at night", "other " * 100, "x"]


def noise_pictures(count: int, height: int, width: int, seed: int) -> Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


ORIGINALS = noise_pictures(5, 48, 64, seed=0)
EDITED = (ORIGINALS + 0.5 * noise_pictures(5, 48, 64, seed=1)).clamp(0, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip")
    tiny_scorer(path / "clip.safetensors")
    return path


@pytest.fixture(scope="module")
def scorer(folder: Path) -> CLIPScorer:
    return CLIPScorer.from_file(folder / "clip.safetensors")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    """The same weights, opened by open_clip itself."""
    path = tmp_path_factory.mktemp("open_clip")
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODEL_CFG, "preprocess_cfg": {}}))
    save_file(tiny_clip().state_dict(), path / "open_clip_model.safetensors")
    return open_clip.create_model(f"local-dir:{path}").eval()


def prepare(images: Tensor, **options: bool) -> Tensor:
    pixels = functional.interpolate(images.permute(0, 3, 1, 2), size=32, mode="bicubic", align_corners=False, **options)
    mean, std = torch.tensor(OPENAI_MEAN), torch.tensor(OPENAI_STD)
    return (pixels - mean[None, :, None, None]) / std[None, :, None, None]


@torch.no_grad()
def published_scores(model: torch.nn.Module, **options: bool) -> Tensor:
    """The formula of the published code's ClipSimilarity, one pair at a time, in the order of PairScores."""
    rows = []
    for original, edited, caption, edited_caption in zip(ORIGINALS, EDITED, CAPTIONS, EDITED_CAPTIONS, strict=True):
        image_0, image_1 = (model.encode_image(prepare(one[None], **options)) for one in (original, edited))
        text_0, text_1 = (model.encode_text(open_clip.tokenize([one])) for one in (caption, edited_caption))
        image_0, image_1, text_0, text_1 = (
            one / one.norm(dim=1, keepdim=True) for one in (image_0, image_1, text_0, text_1)
        )
        similarity = functional.cosine_similarity
        rows.append(
            torch.cat(
                [
                    similarity(image_0, text_0),
                    similarity(image_1, text_1),
                    similarity(image_0, image_1),
                    similarity(image_1 - image_0, text_1 - text_0),
                ]
            )
        )
    return torch.stack(rows)


def distance(scores: list[PairScores], reference: Tensor) -> float:
    return float((torch.tensor(scores) - reference).abs().max())


def test_scores_equal_the_published_formula_on_open_clip(scorer: CLIPScorer, theirs: torch.nn.Module):
    ours = scorer.score(ORIGINALS, EDITED, CAPTIONS, EDITED_CAPTIONS)
    assert distance(ours, published_scores(theirs)) <= TOLERANCE


def test_the_comparison_would_notice_a_resize_with_antialias(scorer: CLIPScorer, theirs: torch.nn.Module):
    ours = scorer.score(ORIGINALS, EDITED, CAPTIONS, EDITED_CAPTIONS)
    assert distance(ours, published_scores(theirs, antialias=True)) > 100 * TOLERANCE


def test_the_comparison_would_notice_captions_in_the_wrong_order(scorer: CLIPScorer, theirs: torch.nn.Module):
    ours = scorer.score(ORIGINALS, EDITED, EDITED_CAPTIONS, CAPTIONS)
    assert distance(ours, published_scores(theirs)) > 100 * TOLERANCE


def test_one_by_one_equals_one_batch(scorer: CLIPScorer):
    together = scorer.score(ORIGINALS, EDITED, CAPTIONS, EDITED_CAPTIONS)
    alone = [
        scorer.score(ORIGINALS[i : i + 1], EDITED[i : i + 1], [CAPTIONS[i]], [EDITED_CAPTIONS[i]])[0] for i in range(5)
    ]
    assert distance(together, torch.tensor(alone)) <= TOLERANCE


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_batch_size_does_not_change_the_features(scorer: CLIPScorer, batch_size: int):
    images = scorer.embed_images(ORIGINALS, batch_size=batch_size)
    texts = scorer.embed_texts(CAPTIONS, batch_size=batch_size)
    torch.testing.assert_close(images, scorer.embed_images(ORIGINALS), atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(texts, scorer.embed_texts(CAPTIONS), atol=TOLERANCE, rtol=0)


def test_text_ids_are_those_of_open_clip_s_own_tokenizer(scorer: CLIPScorer):
    assert scorer._tokenize(CAPTIONS).tolist() == open_clip.tokenize(CAPTIONS).tolist()


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14-quickgelu", "MobileCLIP-S1"])
def test_named_architectures_have_the_mean_and_std_of_open_clip_s_weights(name: str):
    from ip2p.ip2p_core.open_clip_adapter import named_architecture

    tag = open_clip.list_pretrained_tags_by_model(name)[0]
    wanted = open_clip.get_pretrained_cfg(name, tag)
    found = named_architecture(name).preprocess_cfg
    assert tuple(found.get("mean", OPENAI_MEAN)) == tuple(wanted["mean"])
    assert tuple(found.get("std", OPENAI_STD)) == tuple(wanted["std"])


def to_transformers(state: dict[str, Tensor], model_class: type[CLIPModel] = CLIPModel) -> CLIPModel:
    """Put open_clip's weights into transformers' CLIPModel."""
    common = {"num_hidden_layers": 2, "hidden_act": "quick_gelu", "projection_dim": 24}
    text = {"hidden_size": 24, "intermediate_size": 96, "num_attention_heads": 2, "vocab_size": 49408, **common}
    vision = {
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        **common,
    }
    model = model_class(
        CLIPConfig(text_config={**text, "eos_token_id": 49407}, vision_config=vision, projection_dim=24)
    )
    weights = {
        f"text_model.{name}": value
        for name, value in text_from_open_clip(
            {name: value for name, value in state.items() if not name.startswith(("visual.", "logit_"))},
            text,
            has_projection=True,
        ).items()
    }
    weights["text_projection.weight"] = weights.pop("text_model.text_projection.weight")
    weights["logit_scale"], weights["visual_projection.weight"] = (
        state["logit_scale"],
        state["visual.proj"].T.contiguous(),
    )
    names = {
        "class_embedding": "embeddings.class_embedding",
        "conv1.weight": "embeddings.patch_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
    }
    names |= {
        f"ln_{end}.{kind}": f"{ours}.{kind}"
        for end, ours in (("pre", "pre_layrnorm"), ("post", "post_layernorm"))
        for kind in ("weight", "bias")
    }
    inside = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    for layer in range(2):
        block, target = f"transformer.resblocks.{layer}", f"encoder.layers.{layer}"
        for kind in ("weight", "bias"):
            names |= {f"{block}.{one}.{kind}": f"{target}.{other}.{kind}" for one, other in inside.items()}
            parts = state[f"visual.{block}.attn.in_proj_{kind}"].chunk(3)
            for letter, part in zip("qkv", parts, strict=True):
                weights[f"vision_model.{target}.self_attn.{letter}_proj.{kind}"] = part.contiguous()
    weights |= {f"vision_model.{other}": state[f"visual.{one}"] for one, other in names.items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert [name for name in missing if "position_ids" not in name] == unexpected == []
    return model.eval()


def test_image_caption_scores_equal_transformers_where_nothing_is_resized(scorer: CLIPScorer, tokenizer: CLIPTokenizer):
    # torchmetrics' CLIPScore is this cosine times 100; its own resizing differs from the published code's
    images = noise_pictures(5, 32, 32, seed=2)
    texts = [text.replace("&amp;", "&") for text in CAPTIONS]
    model, ids = (
        to_transformers(tiny_clip().state_dict()),
        tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt"),
    )
    with torch.no_grad():
        output = model(input_ids=ids.input_ids, pixel_values=prepare(images))
    reference = (output.image_embeds * output.text_embeds).sum(dim=1)
    ours = torch.tensor([one.caption_0 for one in scorer.score(images, images, CAPTIONS, CAPTIONS)])
    torch.testing.assert_close(ours, reference, atol=TOLERANCE, rtol=0)


class BareFeatures(CLIPModel):
    """Returns features as torchmetrics expects them; transformers 5 wraps them."""

    def get_image_features(self, *args: object, **options: object) -> Tensor:
        found = super().get_image_features(*args, **options)
        return found if isinstance(found, Tensor) else found.pooler_output

    def get_text_features(self, *args: object, **options: object) -> Tensor:
        found = super().get_text_features(*args, **options)
        return found if isinstance(found, Tensor) else found.pooler_output


def test_scores_equal_torchmetrics_where_nothing_is_resized(scorer: CLIPScorer, tokenizer: CLIPTokenizer):
    from torchmetrics.multimodal.clip_score import CLIPScore
    from transformers import CLIPImageProcessor, CLIPProcessor

    model = to_transformers(tiny_clip().state_dict(), BareFeatures)
    image_processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    metric = CLIPScore(lambda: (model, CLIPProcessor(image_processor, tokenizer)))
    images = (noise_pictures(5, 32, 32, seed=2) * 255).round()
    texts = ["a red square", "a cat", "a dog", "a house", "a tree"]
    mean = metric(list(images.permute(0, 3, 1, 2).to(torch.uint8)), texts)
    ours = [one.caption_0 for one in scorer.score(images / 255, images / 255, texts, texts)]
    assert abs(100 * sum(ours) / 5 - float(mean.detach())) <= 100 * TOLERANCE
