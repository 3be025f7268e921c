"""Measuring edits: CLIP's similarities and the distances of pictures, as a table and as a record."""

import torch
from typing_extensions import override

from ..ip2p_core.image_size import extent_of
from ..ip2p_core.instruction import split_lines
from ..ip2p_core.metrics_report import report_metrics
from ..ip2p_core.pair_metrics import EditContext, PairMetrics, missing_ssim, require_alike
from .comfy_adapter import codec
from .edit_steps import match_mask
from .schema import CATEGORY, Blocker, ClipScorer, io, schema, socket

_ONE_OR_EACH = "One line for all pictures, or one per picture."


def _text(name: str, tooltip: str):
    return socket(
        io.String.Input,
        name,
        default="",
        optional=True,
        multiline=True,
        tooltip=f"{tooltip} {_ONE_OR_EACH}",
    )


class EditMetrics(io.ComfyNode):
    """How far edits follow, and how much of the pictures stays."""

    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EditMetrics",
            display_name="Edit Metrics",
            category=CATEGORY,
            description=(
                "Measures edits: L1, L2, PSNR and SSIM between the pictures before and after, outside and inside a mask, and "
                "to the right result where there is one; with a CLIP scorer the similarities of the paper too. A metric that "
                "cannot be had is named in the report with the reason. The numbers are those of 'ip2p evaluate'."
            ),
            search_aliases=["ip2p metrics", "clip score", "directional similarity", "psnr", "ssim", "compare images"],
            inputs=[
                io.Image.Input("before", tooltip="The pictures before the edit."),
                io.Image.Input("after", tooltip="The pictures after it: as many, of the same size."),
                ClipScorer.Input("scorer", optional=True, tooltip="From Load CLIP Scorer, for CLIP's similarities."),
                _text("caption", "What the pictures show, for the directional similarity."),
                _text("edited_caption", "What they shall show after the edit."),
                _text("instruction", "What was asked for: compared with the edited picture."),
                io.Image.Input("target", optional=True, tooltip="The right results, as many and of the same size."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White where the pictures may change; one for all, or one per picture.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="table"),
                io.String.Output(display_name="report"),
                io.Float.Output(display_name="directional", tooltip="Mean; waits where it cannot be measured."),
                io.Float.Output(display_name="image_similarity", tooltip="Mean; waits where there is no scorer."),
                io.Float.Output(display_name="l1", tooltip="Mean absolute difference of before and after."),
            ],
        )

    @classmethod
    @override
    def execute(
        cls, before, after, scorer=None, caption="", edited_caption="", instruction="", target=None, mask=None
    ) -> io.NodeOutput:
        given = {"before": before, "after": after, "target": target}
        pictures = {name: codec.as_rgb(one) for name, one in given.items() if one is not None}
        require_alike(**pictures)
        metrics = PairMetrics(None if scorer is None else scorer.on_device(), has_ssim=not missing_ssim())
        contexts = _contexts(pictures, mask, instruction=instruction, caption=caption, edited_caption=edited_caption)
        scores = metrics.measure(pictures["before"], pictures["after"], contexts)
        extent = extent_of(pictures["after"])
        report = report_metrics(metrics, scores, contexts, (extent.width, extent.height))
        means = [report.mean(name) for name in ("directional", "image", "l1")]
        return io.NodeOutput(report.table(), report.json(), *(Blocker(None) if one is None else one for one in means))


def _contexts(pictures: dict[str, torch.Tensor], mask: torch.Tensor | None, **texts: str) -> list[EditContext]:
    """What is known of every edit."""
    num_images = len(pictures["after"])
    each = {name: split_lines(text, num_images) if text.strip() else [""] * num_images for name, text in texts.items()}
    masks = [None] * num_images if mask is None else match_mask(mask, pictures["after"]).cpu().float()
    targets = pictures.get("target", [None] * num_images)
    return [
        EditContext(**{name: lines[i] for name, lines in each.items()}, mask=masks[i], target=targets[i])
        for i in range(num_images)
    ]
