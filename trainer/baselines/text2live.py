"""Text2LIVE (Bar-Tal et al. 2022, arXiv:2204.02491): edit one picture by a layer of colour and opacity, painted for two captions.

A small network is optimised for the one picture, on random crops of it, so that CLIP finds the edited caption in the result and its
change in the change of the picture. Losses, weights, schedule and optimiser are those of the published code (image_config.yaml).
What differs: CLIP sees square pictures, since open_clip's position embeddings are not stretched to other shapes; the views of a
picture are drawn as `text2live_views` says; the screen text is the edited caption; the opacity is not started from CLIP's relevancy
map (off in the published defaults, on in its examples); the layer is brought back to the picture's own size.
Shapes: H W height and width in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import torch
from torch import Tensor

from ...ip2p_core.clip_scorer import CLIPScorer
from ...ip2p_core.errors import BadImage, BadInstruction, ConfigError, TrainingHalted
from ...ip2p_core.randomness import generator, hash64
from .edit_layer import EditLayerNet, Layer, MadGrad, scales_for
from .text2live_losses import SCREEN_TEMPLATES, TEMPLATES, ClipLosses, encode_captions, sparsity_loss
from .text2live_views import ViewSettings, draw_recolouring

SMALLEST_SIDE = 8
"""In pixels; smaller crops have nothing to halve."""


@dataclass(frozen=True, kw_only=True)
class Text2LiveSettings:
    """How a layer is optimised; the defaults are the published ones.

    Attributes:
        steps: of the optimiser.
        lr: of the first step.
        lr_decay: what every step multiplies it by.
        smallest_lr: where that ends.
        composition: weight of the distance to the edited caption plus the directional loss.
        screen: weight of the distance of the layer over a green screen.
        structure: weight of the change of the self-similarity.
        sparsity: weight of the opacity's penalties.
        opacity_l1: weight within that.
        opacity_l0: the same.
        working_side: shorter side in pixels at which the layer is painted; 0 for the picture's own.
        whole_every: so many steps lie between two that also see the whole picture.
        smallest_crop: least side of the crops that the network sees, as a share.
        smallest_scale: least size of what is cropped, as a share of the picture.
        largest_scale: the same, most.
        flip: share of the crops that are mirrored.
        jitter: share of the crops whose colours change.
        jitter_strength: how much.
        width: channels of the network.
        skip: channels of its skip connections.
        num_scales: how often it halves the size; fewer for small pictures.
        views: how pictures are varied before CLIP sees them.
        is_paired: CLIP sees a picture and its edit in the same views.
        templates: sentences around the captions, which stand where the braces are.
        screen_templates: sentences around the caption of the layer over green.

    Raises:
        ConfigError: if a number is out of range.
    """

    steps: int = 1000
    lr: float = 0.0025
    lr_decay: float = 0.99
    smallest_lr: float = 1e-5
    composition: float = 1.0
    screen: float = 1.0
    structure: float = 2.0
    sparsity: float = 6.0
    opacity_l1: float = 0.01
    opacity_l0: float = 0.01
    working_side: int = 512
    whole_every: int = 75
    smallest_crop: float = 0.85
    smallest_scale: float = 0.8
    largest_scale: float = 1.2
    flip: float = 0.5
    jitter: float = 0.1
    jitter_strength: float = 0.1
    width: int = 128
    skip: int = 4
    num_scales: int = 7
    views: ViewSettings = field(default_factory=ViewSettings)
    is_paired: bool = False
    templates: tuple[str, ...] = TEMPLATES
    screen_templates: tuple[str, ...] = SCREEN_TEMPLATES

    def __post_init__(self) -> None:
        numbers = {one.name: getattr(self, one.name) for one in fields(self)}
        least = dict.fromkeys(("steps", "whole_every", "width", "skip", "num_scales"), 1)
        mistakes = [
            f"{name} is {value}; it must be at least {least.get(name, 0)}. Raise it."
            for name, value in numbers.items()
            if isinstance(value, (int, float)) and not least.get(name, 0) <= value < math.inf
        ]
        if self.views.num_views < 1:
            mistakes.append(f"num_views is {self.views.num_views}; CLIP must see at least 1. Raise it.")
        if not (0 < self.smallest_crop <= 1 and 0 < self.smallest_scale <= self.largest_scale):
            mistakes.append(
                f"The crops go down to {self.smallest_crop} at scales of {self.smallest_scale} to {self.largest_scale}; crops "
                "must lie above 0 and at most at 1, and the scales rise from above 0. Change them."
            )
        if not all("{}" in one for one in (*self.templates, *self.screen_templates)):
            mistakes.append("A template has no braces {} where the caption goes. Write them.")
        if not (self.templates and self.screen_templates):
            mistakes.append('There are no templates; captions need at least one, such as "{}". Give one.')
        if mistakes:
            raise ConfigError(*mistakes)

    @classmethod
    def small(cls) -> Text2LiveSettings:
        """Return settings for rendered scenes of about 100 pixels and the embedded CLIP, half a minute on one core.

        The embedded CLIP knows neither green screens nor photographs, so the screen loss is off and the templates are its own.
        Few views are enough if a picture and its edit share them, and small opaque layers need a stronger sparsity.
        """
        return cls(
            steps=180,
            lr=0.005,
            lr_decay=0.985,
            screen=0.0,
            sparsity=24.0,
            working_side=64,
            width=24,
            num_scales=4,
            views=ViewSettings(num_views=8),
            is_paired=True,
            templates=("{}", "a picture of {}", "a drawing of {}"),
        )


class Text2LiveResult(NamedTuple):
    """An edited picture, the layer that makes it, and how the optimisation went."""

    image: Tensor  # [H, W, 3] in [0, 1]
    layer: Tensor  # [H, W, 3] in [0, 1]
    opacity: Tensor  # [H, W] in [0, 1]
    losses: tuple[Mapping[str, float], ...]  # of every step, before their weights; "total" with them
    left_out: str  # what this CLIP model does not allow, as a sentence; empty if nothing


def text2live(
    scorer: CLIPScorer,
    image: Tensor,
    caption: str,
    edited_caption: str,
    settings: Text2LiveSettings,
    *,
    seed: int,
    callback: Callable[[int, dict[str, float]], None] | None = None,
) -> Text2LiveResult:
    """Edit one picture towards a caption.

    Args:
        scorer: CLIP; the work is done on its device.
        image: [H, W, 3] in [0, 1].
        caption: of the picture.
        edited_caption: of what it shall become.
        settings: weights, steps and so on.
        seed: of the network's first weights and of all draws.
        callback: is told the number of every step, from 0, and its losses.

    Returns:
        The edited picture and its layer, on the device of `image`.

    Raises:
        BadImage: if the picture has another shape, or values outside [0, 1], or NaN.
        BadInstruction: if a caption is empty.
        TrainingHalted: if a loss is no longer finite.
    """
    _require_picture(image)
    if not (caption.strip() and edited_caption.strip()):
        raise BadInstruction(
            f"The captions are {caption!r} and {edited_caption!r}; Text2LIVE needs one of the picture and one of the edited "
            "picture. Write both."
        )
    with torch.inference_mode(mode=False), torch.enable_grad(), torch.autocast(scorer.device.type, enabled=False):
        picture = image.detach().clone().to(scorer.device, torch.float32).movedim(-1, 0)[None]
        run = _Run(scorer, picture, (caption, edited_caption), settings, seed)
        history = []
        for step in range(settings.steps):
            history.append(run.step(step))
            if callback:
                callback(step, dict(history[-1]))
        layer = run.layer()
        edited = layer.over(picture)
    has_structure = settings.structure == 0 or "structure" in history[-1]
    return Text2LiveResult(
        image=edited[0].movedim(0, -1).to(image),
        layer=layer.colour[0].movedim(0, -1).to(image),
        opacity=layer.opacity[0, 0].to(image),
        losses=tuple(history),
        left_out=""
        if has_structure
        else f"{scorer.name} has no vision transformer, so the structure loss is left out.",
    )


def _require_picture(image: Tensor) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or not image.numel():
        raise BadImage(
            f"The picture has the shape {list(image.shape)}; [height, width, 3] is needed. Give one picture."
        )
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):
        raise BadImage(
            f"The picture has values from {low:.3g} to {high:.3g}; they must lie within 0 and 1. Clamp them."
        )


def _resize(picture: Tensor, height: int, width: int) -> Tensor:
    """Resize [B, C, H, W] without aliasing; the same tensor if the size is the same."""
    if picture.shape[-2:] == (height, width):
        return picture
    return torch.nn.functional.interpolate(picture, (height, width), mode="bilinear", antialias=True)


class _Run:
    """One optimisation: the network, its optimiser, and the picture at the working size."""

    def __init__(
        self, scorer: CLIPScorer, picture: Tensor, captions: tuple[str, str], settings: Text2LiveSettings, seed: int
    ) -> None:
        self.settings, self.seed, self.own_size = settings, seed, (picture.shape[-2], picture.shape[-1])
        side = min(self.own_size)
        scale = max(settings.working_side or side, SMALLEST_SIDE) / side
        self.picture = _resize(picture, *(round(one * scale) for one in self.own_size))
        side = max(SMALLEST_SIDE, int(min(self.picture.shape[-2:]) * settings.smallest_scale * settings.smallest_crop))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash64(seed, "text2live network"))
            net = EditLayerNet(settings.width, settings.skip, scales_for(side, settings.num_scales))
        self.net = net.to(picture.device)
        self.optimiser = MadGrad(list(self.net.parameters()))
        texts = encode_captions(scorer, captions, settings.templates, settings.screen_templates)
        self.clip = ClipLosses(scorer, texts, settings.views, is_paired=settings.is_paired)

    def step(self, number: int) -> dict[str, float]:
        """Take one step of the optimiser; return the losses before it."""
        settings, rng = self.settings, generator(self.seed, "text2live", number)
        pictures = [self._crop(rng), *([self.picture] if number % settings.whole_every == 0 else [])]
        losses = self._losses(pictures, [self.net(one) for one in pictures], rng)
        total = torch.stack([getattr(settings, name) * loss for name, loss in losses.items()]).sum()
        values = {name: float(loss.detach()) for name, loss in {**losses, "total": total}.items()}
        if not math.isfinite(values["total"]):
            raise TrainingHalted(f"The losses of step {number} are {values}; they must be finite. Lower lr.")
        total.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step(max(settings.smallest_lr, settings.lr * settings.lr_decay**number))
        return values

    def _losses(self, pictures: list[Tensor], layers: list[Layer], rng: torch.Generator) -> dict[str, Tensor]:
        """The losses whose weight is not 0, under the names of their weights."""
        settings = self.settings
        edited = [layer.over(picture) for layer, picture in zip(layers, pictures, strict=True)]
        penalties = [sparsity_loss(one.opacity, settings.opacity_l1, settings.opacity_l0) for one in layers]
        losses: dict[str, Tensor | None] = {"sparsity": torch.stack(penalties).mean()}
        if settings.composition:
            losses["composition"] = self.clip.composition(pictures, edited, rng)
        if settings.screen:
            losses["screen"] = self.clip.screen(layers, rng)
        if settings.structure:
            losses["structure"] = self.clip.structure(pictures, edited)
        return {name: loss for name, loss in losses.items() if loss is not None}

    def _crop(self, rng: torch.Generator) -> Tensor:
        """A crop of the picture at a random scale, mirrored or not, its colours changed or not."""
        settings, picture = self.settings, self.picture
        recolouring = draw_recolouring(rng, 1, settings.jitter, settings.jitter_strength, 0.0)
        flip, scale, cover, down, right = torch.rand(5, generator=rng).tolist()
        scale = settings.smallest_scale + scale * (settings.largest_scale - settings.smallest_scale)
        picture = recolouring.apply(picture)
        picture = picture.flip(-1) if flip < settings.flip else picture
        sizes = [max(SMALLEST_SIDE, int(one * scale)) for one in picture.shape[-2:]]
        picture = _resize(picture, *sizes)
        cover = settings.smallest_crop + cover * (1 - settings.smallest_crop)
        height, width = (max(SMALLEST_SIDE, int(one * cover)) for one in sizes)
        top, left = int(down * (sizes[0] - height + 1)), int(right * (sizes[1] - width + 1))
        return picture[..., top : top + height, left : left + width]

    @torch.no_grad()
    def layer(self) -> Layer:
        """Paint the layer of the whole picture, at the picture's own size."""
        return Layer(*(_resize(one, *self.own_size).clamp(0, 1) for one in self.net(self.picture)))
