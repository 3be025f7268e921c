"""Looking at what the settings of an edit do: many scales and seeds beside each other."""

from typing import NamedTuple

import torch
from typing_extensions import override

from ..ip2p_core.errors import ConfigError
from ..ip2p_core.guidance_grid import Point, draw_grid, draw_tradeoff, parse_numbers
from ..ip2p_core.image_size import extent_of
from ..ip2p_core.pair_record import PairScores
from ..ip2p_core.relevance import mask_of_map
from . import edit_steps as steps_of
from .comfy_adapter import codec
from .comfy_adapter.guider import require_editor
from .edit_inputs import instruction_inputs, schedule_inputs, working_resolution_input
from .schema import CATEGORY, Blocker, ClipScorer, io, schema, socket

MOST_EDITS = 400


class _Cell(NamedTuple):
    """An edit of the grid."""

    text_scale: float
    image_scale: float
    seed: int
    picture: torch.Tensor
    scores: PairScores | None


class GuidanceGrid(io.ComfyNode):
    """One picture at many pairs of scales."""

    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="GuidanceGrid",
            display_name="Guidance Grid",
            category=CATEGORY,
            description=(
                "Edits one picture at every pair of the scales that you list, with one or several seeds, and shows all results "
                "in one labelled picture. With a CLIP scorer and captions it also plots what each pair trades: how far the "
                "picture follows the edit against how much of it stays."
            ),
            search_aliases=["xy plot", "guidance scale grid", "ip2p grid", "compare scales"],
            inputs=[
                io.Model.Input("model", tooltip="An InstructPix2Pix model (8 input channels)."),
                io.Clip.Input("clip", tooltip="The text encoder of the model."),
                io.Vae.Input("vae", tooltip="The autoencoder of the model."),
                io.Image.Input("image", tooltip="The picture to edit; of a batch the first."),
                *instruction_inputs(),
                socket(
                    io.String.Input,
                    "text_scales",
                    default="3, 5, 7.5, 10",
                    tooltip="Text guidance scales, one column each. The embedded model: .5, 1, 1.5, 2.",
                ),
                socket(
                    io.String.Input,
                    "image_scales",
                    default="1, 1.2, 1.5, 2",
                    tooltip="Image guidance scales, one row each. The embedded model: .5, 1, 1.5.",
                ),
                socket(
                    io.Int.Input,
                    "num_seeds",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="Edits of every pair of scales, with seed, seed + 1, ...; each makes rows of its own.",
                ),
                *schedule_inputs(),
                working_resolution_input(),
                ClipScorer.Input("scorer", optional=True, tooltip="From Load CLIP Scorer: for scores and the plot."),
                socket(
                    io.String.Input,
                    "caption",
                    default="",
                    optional=True,
                    tooltip="What the picture shows, for the scores.",
                ),
                socket(
                    io.String.Input,
                    "edited_caption",
                    default="",
                    optional=True,
                    tooltip="What it shows after the edit, for the scores.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="grid"),
                io.Image.Output(display_name="images"),
                io.Image.Output(display_name="plot", tooltip="Waits where no scorer and captions are connected."),
                io.String.Output(display_name="table"),
            ],
        )

    @classmethod
    @override
    def execute(
        cls, model, clip, vae, image, instruction, text_scales, image_scales, num_seeds,
        seed, steps, sampler_name, scheduler, working_resolution,
        negative_instruction="", scorer=None, caption="", edited_caption="",
    ) -> io.NodeOutput:  # fmt: skip
        require_editor(model)
        columns, rows = parse_numbers(text_scales, "text_scales"), parse_numbers(image_scales, "image_scales")
        if len(columns) * len(rows) * num_seeds > MOST_EDITS:
            raise ConfigError(
                f"{len(columns)} x {len(rows)} scales with {num_seeds} seeds are {len(columns) * len(rows) * num_seeds} edits; "
                f"at most {MOST_EDITS} fit. List fewer scales."
            )
        if scorer is not None and not (caption.strip() and edited_caption.strip()):
            raise ConfigError("A scorer is connected, and its scores need caption and edited_caption. Write both.")
        image = codec.as_rgb(image)[:1].repeat(num_seeds, 1, 1, 1)
        conditioned = steps_of.condition(clip, vae, image, instruction, negative_instruction, working_resolution)
        plan = {"seed": seed, "steps": steps, "sampler_name": sampler_name, "scheduler": scheduler}
        cells = []
        for image_scale in rows:
            for text_scale in columns:
                guidance = steps_of.guidance_settings(model, text_scale, image_scale)
                sampled = steps_of.sample(model, conditioned, guidance, **plan)
                edited = steps_of.decode(vae, sampled.latent, image)
                scores = [None] * num_seeds
                if scorer is not None:
                    texts = [caption] * num_seeds, [edited_caption] * num_seeds
                    scores = scorer.on_device().score(image, edited, *texts)
                cells += [_Cell(text_scale, image_scale, seed + i, edited[i], scores[i]) for i in range(num_seeds)]
        cells.sort(key=lambda cell: (rows.index(cell.image_scale), cell.seed, columns.index(cell.text_scale)))
        pictures = [cell.picture for cell in cells]
        row_names = [
            f"image {row:g}" + (f"\nseed {seed + i}" if num_seeds > 1 else "") for row in rows for i in range(num_seeds)
        ]
        grid = draw_grid(pictures, row_names, [f"text {column:g}" for column in columns], instruction.strip())
        plot = Blocker(None) if scorer is None else _plot(cells, rows, columns)[None]
        return io.NodeOutput(grid[None], torch.stack(pictures), plot, _table(cells))


class RelevanceMask(io.ComfyNode):
    """A relevance map to a mask."""

    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="RelevanceMask",
            display_name="Relevance Mask",
            category=CATEGORY,
            description=(
                "Makes a mask of where an instruction acts, from the relevance map of Dual CFG Sampler. Connected to Instruct "
                "Decode it keeps the picture outside the edit bit for bit; connected to Instruct Conditioning of a second "
                "sampling the edit itself stays inside."
            ),
            search_aliases=["relevance map", "auto mask", "localised edit", "watch your steps"],
            inputs=[
                io.Mask.Input("relevance_map", tooltip="From Dual CFG Sampler."),
                io.Image.Input("image", tooltip="The images before the edit: they give the size."),
                socket(
                    io.Float.Input,
                    "threshold",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=0.001,
                    tooltip="Lower edits more of the picture. 0.3 to 0.6 is usual.",
                ),
                socket(
                    io.Int.Input,
                    "grow",
                    default=8,
                    min=0,
                    max=512,
                    tooltip="Pixels by which the mask is widened on all sides.",
                ),
            ],
            outputs=[io.Mask.Output(display_name="mask")],
        )

    @classmethod
    @override
    def execute(cls, relevance_map, image, threshold, grow) -> io.NodeOutput:
        return io.NodeOutput(mask_of_map(relevance_map, extent_of(image), threshold, grow))


def _plot(cells: list[_Cell], rows: list[float], columns: list[float]) -> torch.Tensor:
    """One curve for each text scale, over the image scales; seeds are averaged."""
    curves = {}
    for column in columns:
        points = []
        for row in rows:
            scores = [cell.scores for cell in cells if (cell.text_scale, cell.image_scale) == (column, row)]
            mean = [sum(getattr(one, name) for one in scores) / len(scores) for name in ("directional", "image")]
            points.append(Point(*mean, f"{row:g}"))
        curves[f"text {column:g}"] = points
    return draw_tradeoff(curves)


def _table(cells: list[_Cell]) -> str:
    has_scores = cells[0].scores is not None
    lines = ["image_scale\ttext_scale\tseed" + ("\tdirectional\timage" if has_scores else "")]
    for cell in cells:
        scores = f"\t{cell.scores.directional:.4f}\t{cell.scores.image:.4f}" if cell.scores is not None else ""
        lines.append(f"{cell.image_scale:g}\t{cell.text_scale:g}\t{cell.seed}{scores}")
    return "\n".join(lines)
