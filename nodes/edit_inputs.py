"""The inputs that several edit nodes share, so that a widget has one name, range and tooltip everywhere."""

from .comfy_adapter import sampling
from .schema import io, socket

MODEL_DEFAULT = "model default"
"""First choice of the sampler and scheduler lists: what the model file names."""


def instruction_inputs() -> list:
    """The instruction and the negative instruction."""
    return [
        socket(
            io.String.Input,
            "instruction",
            multiline=True,
            default="",
            placeholder="make it black and white",
            tooltip=(
                "What to change, as an instruction: 'make it black and white'. One line for all images, or one line "
                "per image of the batch. Plain text: no (weight:1.2) syntax. At most 75 tokens per line are read."
            ),
        ),
        socket(
            io.String.Input,
            "negative_instruction",
            multiline=True,
            default="",
            optional=True,
            tooltip="What to stay away from. Usually empty. One line for all images, or one line per image.",
        ),
    ]


def working_resolution_input():
    """The size at which the model works."""
    return socket(
        io.Int.Input,
        "working_resolution",
        default=0,
        min=0,
        max=4096,
        step=8,
        tooltip=(
            "Longer side in pixels at which the model works; the result has the size of your image again. "
            "0 takes the model's own value (512 for SD1.5). Larger shows finer detail but strays from what the model "
            "was trained on, and costs time and memory."
        ),
    )


def scale_inputs() -> list:
    """The two guidance scales."""
    return [text_scale_input(), image_scale_input()]


def text_scale_input():
    """s_T of eq. 3."""
    return socket(
        io.Float.Input,
        "text_guidance_scale",
        default=-1.0,
        min=-1.0,
        max=100.0,
        step=0.1,
        round=0.001,
        tooltip=(
            "How strongly the result follows the instruction. 5 to 10 is usual; 1 switches this guidance off. "
            "-1 takes the model's own value (7.5 for SD1.5)."
        ),
    )


def image_scale_input():
    """s_I of eq. 3."""
    return socket(
        io.Float.Input,
        "image_guidance_scale",
        default=-1.0,
        min=-1.0,
        max=100.0,
        step=0.05,
        round=0.001,
        tooltip=(
            "Higher keeps more of the input image. 1.0 to 2.0 is usual; exactly 1 is a third faster. "
            "-1 takes the model's own value (1.5 for SD1.5)."
        ),
    )


def schedule_inputs() -> list:
    """Seed, steps, sampler and scheduler."""
    return [
        socket(
            io.Int.Input,
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=True,
            tooltip="Start of the noise. Image number i of a batch gets the noise of seed + i, as if edited alone.",
        ),
        socket(
            io.Int.Input,
            "steps",
            default=0,
            min=0,
            max=10000,
            tooltip="Sampling steps. More takes longer and rarely helps beyond 50. 0 takes the model's own value.",
        ),
        socket(
            io.Combo.Input,
            "sampler_name",
            options=[MODEL_DEFAULT, *sampling.sampler_names()],
            default=MODEL_DEFAULT,
            tooltip="The sampling method. 'model default' is what the model names, else euler_ancestral.",
        ),
        socket(
            io.Combo.Input,
            "scheduler",
            options=[MODEL_DEFAULT, *sampling.scheduler_names()],
            default=MODEL_DEFAULT,
            tooltip="How the noise levels are spaced. 'model default' is what the model names, else normal.",
        ),
    ]


def conditioning_inputs() -> list:
    """The model and the three conditionings."""
    return [
        io.Model.Input("model", tooltip="An InstructPix2Pix model (8 input channels)."),
        io.Conditioning.Input("full", tooltip="Instruction and image, from Instruct Conditioning."),
        io.Conditioning.Input("image", tooltip="Image without instruction, from Instruct Conditioning."),
        io.Conditioning.Input("uncond", tooltip="Neither image nor instruction, from Instruct Conditioning."),
    ]


def _fraction(name: str, default: float, tooltip: str):
    return socket(
        io.Float.Input,
        name,
        default=default,
        min=0.0,
        max=1.0,
        step=0.01,
        round=0.001,
        optional=True,
        advanced=True,
        tooltip=tooltip,
    )


def guidance_inputs() -> list:
    """Intervals, rescale and projected guidance: optional everywhere."""
    return [
        _fraction("text_start", 0.0, "Fraction of the steps after which the instruction is guided. 0 is the start."),
        _fraction("text_end", 1.0, "Fraction of the steps until which the instruction is guided. Less is faster."),
        _fraction("image_start", 0.0, "Fraction of the steps after which the image is guided. 0 is the start."),
        _fraction("image_end", 1.0, "Fraction of the steps until which the image is guided. Less is faster."),
        _fraction(
            "rescale",
            0.0,
            "Pulls contrast back to that of the unguided prediction (arXiv 2305.08891). 0 is off, 0.7 is strong. "
            "Helps where high scales burn the picture.",
        ),
        socket(
            io.Boolean.Input,
            "apg",
            default=False,
            optional=True,
            advanced=True,
            tooltip="Projected guidance (arXiv 2410.02416): high scales with less saturation.",
        ),
        _fraction("apg_eta", 0.0, "Share of the guidance along the prediction that is kept. 1 is plain guidance."),
        socket(
            io.Float.Input,
            "apg_norm_threshold",
            default=0.0,
            min=0.0,
            max=1000.0,
            step=0.5,
            round=0.001,
            optional=True,
            advanced=True,
            tooltip="Longest guidance step that is allowed; 0 is no limit. 5 to 15 is usual.",
        ),
        socket(
            io.Float.Input,
            "apg_momentum",
            default=0.0,
            min=-1.0,
            max=0.99,
            step=0.05,
            round=0.001,
            optional=True,
            advanced=True,
            tooltip="Share of the last step's guidance that is added. 0 is off, -0.5 is usual.",
        ),
    ]


def feather_input():
    """The soft edge of the paste-back."""
    return socket(
        io.Int.Input,
        "mask_feather",
        default=8,
        min=0,
        max=512,
        optional=True,
        tooltip=(
            "Width in pixels of the soft edge inside the mask. 0 is a hard edge. Pixels outside the mask always stay "
            "exactly as they were."
        ),
    )
