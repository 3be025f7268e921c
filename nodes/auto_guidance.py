"""The scales and the seed that suit one picture and instruction, found by trying."""

from dataclasses import astuple

from typing_extensions import override

from ..ip2p_core.edit_tradeoff import EditTexts, Tradeoff, draw_trials
from ..ip2p_core.guidance_search import LARGEST_BUDGET, SMALLEST_BUDGET, Edited, SearchSettings, search
from . import edit_steps as steps_of
from .comfy_adapter import codec
from .comfy_adapter.guider import require_editor
from .comfy_adapter.progress import StepProgress
from .edit_inputs import instruction_inputs, schedule_inputs, working_resolution_input
from .schema import CATEGORY, ClipScorer, io, schema, socket


def _scale(name: str, default: float, tooltip: str):
    return socket(io.Float.Input, name, default=default, min=0.0, max=100.0, step=0.1, round=0.001, tooltip=tooltip)


def _number(name: str, default: int, low: int, high: int, tooltip: str):
    return socket(io.Int.Input, name, default=default, min=low, max=high, tooltip=tooltip)


def _search_inputs() -> list:
    return [
        _number(
            "budget",
            12,
            SMALLEST_BUDGET,
            LARGEST_BUDGET,
            "Edits in all: half on a coarse grid of scales, then around the best, a quarter for the seeds.",
        ),
        _scale("text_scale_min", 3.0, "Lowest text guidance scale. The embedded model: .5."),
        _scale("text_scale_max", 10.0, "Highest text guidance scale. The embedded model: 2."),
        _scale("image_scale_min", 1.0, "Lowest image guidance scale. The embedded model: .5."),
        _scale("image_scale_max", 2.0, "Highest image guidance scale. The embedded model: 1.5."),
        _number(
            "num_seeds",
            4,
            1,
            64,
            "Seeds that may be tried: seed, seed + 1, ... The first serves the search of the scales.",
        ),
        socket(
            io.Float.Input,
            "keep",
            default=0.2,
            min=0.0,
            max=1.0,
            step=0.05,
            round=0.001,
            tooltip="How much it counts that the picture stays: 0 looks at the edit alone, 1 at what stays alone.",
        ),
    ]


class AutoGuidance(io.ComfyNode):
    """The best of a search over both scales and seeds."""

    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="AutoGuidance",
            display_name="Auto Guidance",
            category=CATEGORY,
            description=(
                "Looks for the scales and the seed that suit one picture and one instruction: tries the model's own, a "
                "coarse grid, then around the best, then other seeds, and gives back the best edit. CLIP judges: with captions by directional against "
                "image similarity, without by how far the picture matches the instruction against what changes elsewhere."
            ),
            search_aliases=["ip2p search", "best guidance scale", "tune scales", "auto cfg"],
            inputs=[
                io.Model.Input("model", tooltip="An InstructPix2Pix model (8 input channels)."),
                io.Clip.Input("clip", tooltip="The text encoder of the model."),
                io.Vae.Input("vae", tooltip="The autoencoder of the model."),
                io.Image.Input("image", tooltip="The picture to edit; of a batch the first."),
                ClipScorer.Input("scorer", tooltip="From Load CLIP Scorer: judges the edits."),
                *instruction_inputs(),
                *_search_inputs(),
                *schedule_inputs(),
                working_resolution_input(),
                *(
                    socket(io.String.Input, name, default="", optional=True, tooltip=tooltip)
                    for name, tooltip in (
                        ("caption", "What the picture shows. With edited_caption it makes a better judge."),
                        ("edited_caption", "What it shall show after the edit."),
                    )
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image"),
                io.Float.Output(display_name="text_guidance_scale"),
                io.Float.Output(display_name="image_guidance_scale"),
                io.Int.Output(display_name="seed"),
                io.String.Output(display_name="table"),
                io.Image.Output(display_name="grid", tooltip="Everything that was tried, the best first."),
            ],
        )

    @classmethod
    @override
    def execute(
        cls, model, clip, vae, image, scorer, instruction, budget,
        text_scale_min, text_scale_max, image_scale_min, image_scale_max, num_seeds, keep,
        seed, steps, sampler_name, scheduler, working_resolution,
        negative_instruction="", caption="", edited_caption="",
    ) -> io.NodeOutput:  # fmt: skip
        require_editor(model)
        texts = EditTexts(instruction=instruction, caption=caption, edited_caption=edited_caption)
        settings = SearchSettings(
            budget=budget,
            own=astuple(steps_of.guidance_settings(model, -1.0, -1.0).scales),
            text_scales=(text_scale_min, text_scale_max),
            image_scales=(image_scale_min, image_scale_max),
            seeds=[(seed + i) % 2**64 for i in range(num_seeds)],
        )
        image = codec.as_rgb(image)[:1]
        conditioned = steps_of.condition(clip, vae, image, instruction, negative_instruction, working_resolution)
        plan = {"steps": steps, "sampler_name": sampler_name, "scheduler": scheduler}

        def edit(text_scale: float, image_scale: float, seed: int) -> Edited:
            guidance = steps_of.guidance_settings(model, text_scale, image_scale)
            sampled = steps_of.sample(model, conditioned, guidance, seed=seed, **plan)
            return Edited(steps_of.decode(vae, sampled.latent, image)[0].cpu(), sampled.relevance_map[0])

        progress = StepProgress(budget, 1)
        tradeoff = Tradeoff(scorer.on_device, image[0].cpu(), texts, keep)
        found = search(edit, tradeoff, settings, lambda edited: progress.finish_run(edited.picture[None]))
        (place, best, _), title = found.best, instruction.strip()
        return io.NodeOutput(best.picture[None], *place, found.table(), draw_trials(found, image[0].cpu(), title)[None])
