"""The CLIP filter on pairs: loading a scorer, and keeping what passes."""

import itertools

import torch
from typing_extensions import override

from ..ip2p_core.errors import ConfigError, Ip2pError
from ..ip2p_core.pair_filter import Filtered, filter_pairs, score_records
from ..ip2p_core.pair_grid import draw_pairs
from ..ip2p_core.pair_record import ImageBytes, PairRecord
from ..ip2p_core.score_plot import draw_histograms
from ..ip2p_core.similarity import PRESET_NAMES, Percentiles, Thresholds
from ..ip2p_core.triplet import Triplet, prompt_id
from .comfy_adapter import folders
from .comfy_adapter import scorer as scorers
from .pair_steps import show
from .schema import CATEGORY, PAIR_ALIASES, ClipScorer, Pairs, io, schema, socket, ui

FILTER_ALIASES = [*PAIR_ALIASES, "clip score", "directional similarity"]
MAX_IN_GRID = 12


class LoadCLIPScorer(io.ComfyNode):
    """A CLIP model that scores pairs."""

    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="LoadCLIPScorer",
            display_name="Load CLIP Scorer",
            category=CATEGORY,
            description=(
                "Loads an open_clip model with both towers, for scores of pictures and texts. The paper uses ViT-L-14 "
                "of OpenAI. Looks in models/ip2p, models/clip_vision and models/text_encoders."
            ),
            search_aliases=FILTER_ALIASES,
            inputs=[
                socket(
                    io.Combo.Input,
                    "scorer_name",
                    options=scorers.scorer_names(),
                    tooltip="An open_clip weights file with image and text tower.",
                ),
                socket(
                    io.String.Input,
                    "architecture",
                    default="",
                    optional=True,
                    tooltip="open_clip's name of the architecture, like ViT-L-14. Empty: what the file says.",
                ),
            ],
            outputs=[ClipScorer.Output(display_name="scorer")],
        )

    @classmethod
    def validate_inputs(cls, scorer_name: str | None = None) -> bool | str:
        """Say in one sentence why a name cannot be loaded."""
        try:
            scorers.resolve_scorer(scorer_name or "")
        except Ip2pError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, scorer_name: str, architecture: str = ""):
        """Load again when the file changed."""
        return folders.stamp(scorers.resolve_scorer(scorer_name)), architecture

    @classmethod
    @override
    def execute(cls, scorer_name: str, architecture: str = "") -> io.NodeOutput:
        return io.NodeOutput(scorers.load_scorer(scorer_name, architecture))


def _number(name: str, default: float, low: float, high: float, tooltip: str):
    return socket(
        io.Float.Input,
        name,
        default=default,
        min=low,
        max=high,
        step=0.01,
        round=0.0001,
        advanced=True,
        tooltip=tooltip,
    )


def _threshold_inputs() -> list:
    custom, percentile = "preset 'custom': lowest ", "preset 'percentile': percent of the pairs to take out by "
    return [
        _number("image_threshold", 0.75, -1.0, 1.0, f"{custom}similarity of the two pictures."),
        _number("caption_threshold", 0.2, -1.0, 1.0, f"{custom}similarity of each picture and its caption."),
        _number(
            "directional_threshold", 0.2, -1.0, 1.0, f"{custom}similarity of the changes of pictures and captions."
        ),
        _number("image_percentile", 25.0, 0.0, 100.0, f"{percentile}the similarity of the two pictures."),
        _number("caption_percentile", 25.0, 0.0, 100.0, f"{percentile}the similarity of picture and caption."),
        _number("directional_percentile", 50.0, 0.0, 100.0, f"{percentile}the directional similarity."),
    ]


class CLIPDirectionalFilter(io.ComfyNode):
    """The pairs that pass the thresholds, the best of every prompt."""

    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CLIPDirectionalFilter",
            display_name="CLIP Directional Filter",
            category=CATEGORY,
            description=(
                "Scores pairs with CLIP and keeps the best of those that pass every threshold: similarity of the two "
                "pictures, of each picture and its caption, and of the direction of change in pictures and captions. "
                "Shows the pairs with their scores and the four histograms with the cut lines."
            ),
            search_aliases=FILTER_ALIASES,
            is_input_list=True,
            is_output_node=True,
            inputs=[
                ClipScorer.Input("scorer", tooltip="From Load CLIP Scorer."),
                socket(
                    io.Combo.Input,
                    "preset",
                    options=list(PRESET_NAMES),
                    default=PRESET_NAMES[0],
                    tooltip=(
                        "'paper' .75/.2/.2 and 'published_code' .70/.2/.2 belong to ViT-L-14. With another CLIP use "
                        "'percentile', or 'custom' after a look at the histograms."
                    ),
                ),
                socket(
                    io.Int.Input,
                    "keep",
                    default=4,
                    min=1,
                    max=100_000,
                    tooltip="At most so many pairs of a prompt: those of the highest directional similarity.",
                ),
                socket(
                    io.Int.Input,
                    "num_shown",
                    default=16,
                    min=1,
                    max=100_000,
                    tooltip="How many pairs come out as images. 'pairs' holds all that were kept.",
                ),
                *_threshold_inputs(),
                Pairs.Input("pairs", optional=True, tooltip="Pairs of any number of prompts. Or connect images below."),
                io.Image.Input("original", optional=True, tooltip="Without pairs: the originals."),
                io.Image.Input("edited", optional=True, tooltip="Without pairs: the edited pictures, as many."),
                *(
                    socket(io.String.Input, name, default="", optional=True, multiline=True, tooltip=tooltip)
                    for name, tooltip in (
                        ("caption", "Without pairs: what the originals show, one line for all or one per image."),
                        ("edited_caption", "Without pairs: what the edited pictures show."),
                    )
                ),
            ],
            outputs=[
                io.Image.Output(display_name="original"),
                io.Image.Output(display_name="edited"),
                Pairs.Output(display_name="pairs"),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    @override
    def execute(cls, scorer, preset, keep, num_shown, **lists) -> io.NodeOutput:
        records = _records(lists)
        scored = score_records(records, scorer[0].on_device(), scorers.PairProgress(len(records)))
        single = {name: value[0] for name, value in lists.items() if name.endswith(("_threshold", "_percentile"))}
        filtered = filter_pairs(
            scored,
            preset[0],
            custom=Thresholds(**{name: single[f"{name}_threshold"] for name in ("image", "caption", "directional")}),
            percentiles=Percentiles(
                **{name: single[f"{name}_percentile"] for name in ("image", "caption", "directional")}
            ),
            keep=keep[0],
        )
        return io.NodeOutput(
            *show(filtered.kept, num_shown[0]), filtered.kept, filtered.report, ui=_preview(filtered, cls)
        )


def _records(lists: dict) -> list[PairRecord]:
    """Collect the pairs from "pairs", or make records of two IMAGE batches.

    Raises:
        ConfigError: if neither is connected, or the numbers differ.
    """
    pairs = list(itertools.chain.from_iterable(lists.get("pairs") or ()))
    if pairs:
        return pairs
    originals, editeds = lists.get("original"), lists.get("edited")
    if not originals or not editeds:
        raise ConfigError('Nothing is connected to filter: connect "pairs", or "original" and "edited" with captions.')
    originals, editeds = ([picture for batch in side for picture in batch] for side in (originals, editeds))
    captions, edited_captions = (_lines(lists, name, len(originals)) for name in ("caption", "edited_caption"))
    if not len(originals) == len(editeds) == len(captions) == len(edited_captions):
        raise ConfigError(
            f"There are {len(originals)} original and {len(editeds)} edited images, {len(captions)} captions and "
            f"{len(edited_captions)} edited captions; every pair needs one of each. Make the numbers equal."
        )
    return [
        _record(i, *parts) for i, parts in enumerate(zip(originals, editeds, captions, edited_captions, strict=True))
    ]


def _lines(lists: dict, name: str, num_images: int) -> list[str]:
    lines = [line.strip() for text in lists.get(name) or () for line in text.splitlines() if line.strip()]
    if not lines:
        raise ConfigError(
            f'"{name}" is empty; the scores need captions. Write one line for all images, or one per image.'
        )
    return lines * num_images if len(lines) == 1 else lines


def _record(index: int, original: torch.Tensor, edited: torch.Tensor, caption: str, edited_caption: str) -> PairRecord:
    triplet = Triplet(caption, "", edited_caption)
    return PairRecord(
        prompt_id=prompt_id(triplet),
        sample_index=index,
        triplet=triplet,
        seed=0,
        p2p_threshold=None,
        text_guidance_scale=None,
        mode="images",
        scores=None,
        original=ImageBytes.from_tensor(original[..., :3]),
        edited=ImageBytes.from_tensor(edited[..., :3]),
    )


def _preview(filtered: Filtered, cls) -> dict:
    """Show the kept pairs (or, where nothing is kept, the first scored ones) and the histograms."""
    pictures = [draw_pairs((filtered.kept or filtered.scored)[:MAX_IN_GRID]), draw_histograms(filtered.histograms)]
    images = [saved for one in pictures for saved in ui.PreviewImage(one[None], cls=cls).values]
    return {"images": images, "text": (filtered.report,)}
