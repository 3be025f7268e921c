"""Editing images by instruction: conditioning, guider, samplers, decoding, and all of it in one node."""

from typing_extensions import override

from . import edit_steps as steps_of
from .comfy_adapter import dual_model, settings
from .comfy_adapter.guider import require_editor
from .edit_inputs import (
    conditioning_inputs,
    feather_input,
    guidance_inputs,
    image_scale_input,
    instruction_inputs,
    scale_inputs,
    schedule_inputs,
    working_resolution_input,
)
from .schema import CATEGORY, SEARCH_ALIASES, io, schema, socket


class InstructConditioning(io.ComfyNode):
    """The three conditionings and the source latents of an edit."""

    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="InstructConditioning",
            display_name="Instruct Conditioning",
            category=CATEGORY,
            description=(
                "Prepares an edit: resizes the image to the working resolution, encodes it, and makes the three "
                "conditionings full (instruction and image), image (image alone) and uncond (neither). The latent holds "
                "the source image, and the mask where one is connected."
            ),
            search_aliases=[*SEARCH_ALIASES, "instruct pix to pix conditioning"],
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder of the model."),
                io.Vae.Input("vae", tooltip="The autoencoder of the model."),
                io.Image.Input("image", tooltip="The images to edit, of any size."),
                *instruction_inputs(),
                working_resolution_input(),
                io.Mask.Input(
                    "mask", optional=True, tooltip="White where to edit; the rest is kept. Of the image's size."
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="full"),
                io.Conditioning.Output(display_name="image"),
                io.Conditioning.Output(display_name="uncond"),
                io.Latent.Output(display_name="latent"),
            ],
        )

    @classmethod
    @override
    def execute(cls, clip, vae, image, instruction, working_resolution=0, negative_instruction="", mask=None):
        return io.NodeOutput(
            *steps_of.condition(clip, vae, image, instruction, negative_instruction, working_resolution, mask)
        )


class InstructGuider(io.ComfyNode):
    """The two guidance scales as a GUIDER for the host's advanced sampler."""

    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="InstructGuider",
            display_name="Instruct Guider",
            category=CATEGORY,
            description=(
                "Guides SamplerCustomAdvanced with the two scales of InstructPix2Pix. Predictions whose weight is 0 are "
                "not computed. LoRA, ControlNet and guidance hooks of other nodes keep working."
            ),
            search_aliases=[*SEARCH_ALIASES, "dual cfg guider", "image guidance scale"],
            inputs=[*conditioning_inputs(), *scale_inputs(), *guidance_inputs()],
            outputs=[io.Guider.Output(display_name="guider")],
        )

    @classmethod
    @override
    def execute(cls, model, full, image, uncond, text_guidance_scale, image_guidance_scale, **options) -> io.NodeOutput:
        guidance = steps_of.guidance_settings(model, text_guidance_scale, image_guidance_scale, **options)
        return io.NodeOutput(steps_of.make_guider(model, full, image, uncond, guidance))


class DualCFGSampler(io.ComfyNode):
    """Sampling with the two scales."""

    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DualCFGSampler",
            display_name="Dual CFG Sampler",
            category=CATEGORY,
            description=(
                "Samples an edit with the two guidance scales. At denoise 1 it starts from noise alone; below 1 from the "
                "latent. A mask in the latent keeps what lies outside. Image i of a batch gets the noise of seed + i."
            ),
            search_aliases=[*SEARCH_ALIASES, "dual cfg", "relevance map", "ip2p sampler"],
            inputs=[
                *conditioning_inputs(),
                io.Latent.Input("latent", tooltip="The latent from Instruct Conditioning."),
                *scale_inputs(),
                *schedule_inputs(),
                socket(
                    io.Float.Input,
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="1 starts from noise and is usual; less starts nearer to the latent and changes less.",
                ),
                *guidance_inputs(),
            ],
            outputs=[
                io.Latent.Output(display_name="latent"),
                io.Mask.Output(
                    display_name="relevance_map",
                    tooltip=(
                        "Where the instruction acts: the difference that the text makes, averaged over the steps, at the "
                        "size of the latent. Zeros where the scales leave out one of the two predictions."
                    ),
                ),
            ],
        )

    @classmethod
    @override
    def execute(
        cls,
        model,
        full,
        image,
        uncond,
        latent,
        text_guidance_scale,
        image_guidance_scale,
        seed,
        steps,
        sampler_name,
        scheduler,
        denoise,
        **options,
    ) -> io.NodeOutput:
        guidance = steps_of.guidance_settings(model, text_guidance_scale, image_guidance_scale, **options)
        conditioned = steps_of.Conditioned(full, image, uncond, latent)
        plan = {"seed": seed, "steps": steps, "sampler_name": sampler_name, "scheduler": scheduler}
        return io.NodeOutput(*steps_of.sample(model, conditioned, guidance, denoise=denoise, **plan))


class DualCFGModel(io.ComfyNode):
    """A model that a plain KSampler guides with two scales."""

    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DualCFGModel",
            display_name="Dual CFG Model",
            category=CATEGORY,
            description=(
                "Gives a plain KSampler the two guidance scales: connect full to positive and image to negative; its cfg "
                "is the text guidance scale. uncond is made inside."
            ),
            search_aliases=[*SEARCH_ALIASES, "dual cfg ksampler"],
            inputs=[
                io.Model.Input("model", tooltip="An InstructPix2Pix model (8 input channels)."),
                image_scale_input(),
            ],
            outputs=[io.Model.Output(display_name="model")],
        )

    @classmethod
    @override
    def execute(cls, model, image_guidance_scale) -> io.NodeOutput:
        require_editor(model)
        scales = settings.choose_scales(settings.config_of_model(model), -1.0, image_guidance_scale)
        return io.NodeOutput(dual_model.add_dual_guidance(model, scales.image_guidance_scale))


class InstructDecode(io.ComfyNode):
    """Latents to images of the original size."""

    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="InstructDecode",
            display_name="Instruct Decode",
            category=CATEGORY,
            description=(
                "Decodes an edit to exactly the size of the original. With a mask, pixels outside it are those of the "
                "original, bit for bit."
            ),
            search_aliases=[*SEARCH_ALIASES, "vae decode original size", "paste back"],
            inputs=[
                io.Vae.Input("vae", tooltip="The autoencoder of the model."),
                io.Latent.Input("latent", tooltip="The latent of the edit."),
                io.Image.Input(
                    "image", tooltip="The images before the edit: they give the size, and the pixels to keep."
                ),
                io.Mask.Input("mask", optional=True, tooltip="White where the edit shall show. Of the image's size."),
                feather_input(),
            ],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    @override
    def execute(cls, vae, latent, image, mask=None, mask_feather=8) -> io.NodeOutput:
        return io.NodeOutput(steps_of.decode(vae, latent, image, mask, mask_feather))


class InstructEdit(io.ComfyNode):
    """An edit in one node: InstructConditioning, DualCFGSampler, InstructDecode."""

    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="InstructEdit",
            display_name="Instruct Edit",
            category=CATEGORY,
            description=(
                "Edits images by a written instruction, in one node: write what to change, run. Settings at -1, 0 or "
                "'model default' take the values that are best for the model. The result has the size of your image."
            ),
            search_aliases=SEARCH_ALIASES,
            inputs=[
                io.Model.Input("model", tooltip="An InstructPix2Pix model (8 input channels)."),
                io.Clip.Input("clip", tooltip="The text encoder of the model."),
                io.Vae.Input("vae", tooltip="The autoencoder of the model."),
                io.Image.Input("image", tooltip="The images to edit, of any size."),
                *instruction_inputs(),
                *scale_inputs(),
                *schedule_inputs(),
                working_resolution_input(),
                io.Mask.Input(
                    "mask", optional=True, tooltip="White where to edit; the rest is kept. Of the image's size."
                ),
                feather_input(),
            ],
            outputs=[io.Image.Output(display_name="image"), io.Latent.Output(display_name="latent")],
        )

    @classmethod
    @override
    def execute(
        cls,
        model,
        clip,
        vae,
        image,
        instruction,
        text_guidance_scale,
        image_guidance_scale,
        seed,
        steps,
        sampler_name,
        scheduler,
        working_resolution,
        negative_instruction="",
        mask=None,
        mask_feather=8,
    ) -> io.NodeOutput:
        require_editor(model)
        conditioned = steps_of.condition(clip, vae, image, instruction, negative_instruction, working_resolution, mask)
        guidance = steps_of.guidance_settings(model, text_guidance_scale, image_guidance_scale)
        plan = {"seed": seed, "steps": steps, "sampler_name": sampler_name, "scheduler": scheduler}
        sampled = steps_of.sample(model, conditioned, guidance, **plan)
        return io.NodeOutput(steps_of.decode(vae, sampled.latent, image, mask, mask_feather), sampled.latent)
