"""What the files in workflows/ contain: nodes, wiring, places and notes. workflow_files.py writes the files from this."""

from __future__ import annotations

from typing import Any, NamedTuple

from ip2p.tests.host.evaluation_workflow_sources import evaluation_workflows
from ip2p.tests.host.pair_workflow_sources import pair_workflows
from ip2p.tests.host.text_workflow_sources import text_workflows
from ip2p.tests.host.workflow_parts import BYPASSED, EMBEDDED, INPUT_PICTURE, Node, Workflow, note


class Checkpoint(NamedTuple):
    """A published editor: what to call it, and what to say about it."""

    model_name: str
    place: str
    origin: str
    licence: str
    hint: str


INSTRUCT_PIX2PIX = Checkpoint(
    "instruct-pix2pix-00-22000.safetensors",
    "`models/checkpoints/instruct-pix2pix-00-22000.safetensors` (7.7 GB; the diffusers folder of the same repository "
    "works too, in `models/diffusers`)",
    "Hugging Face repository **timbrooks/instruct-pix2pix**, the model of the paper, on Stable Diffusion 1.5",
    "MIT; its weights derive from Stable Diffusion, so CreativeML Open RAIL-M applies as well",
    "Paper: 100 steps, euler_ancestral, text 5 to 10, image 1 to 1.5, 512 px. Here 50 steps, which take half the time.",
)
MAGICBRUSH = Checkpoint(
    "magicbrush-ema",
    "`models/diffusers/magicbrush-ema` (the whole folder: `unet`, `vae`, `text_encoder`, `scheduler`)",
    "Hugging Face repository **vinesmsuic/magicbrush-ema**, InstructPix2Pix fine-tuned on MagicBrush (original: "
    "osunlp/InstructPix2Pix-MagicBrush)",
    "CreativeML Open RAIL-M; the data set MagicBrush is CC BY 4.0",
    "20 steps, text 7, image 1.5, 512 px. Made for local edits of photographs; weak at styles.",
)
COSXL_EDIT = Checkpoint(
    "cosxl_edit.safetensors",
    "`models/checkpoints/cosxl_edit.safetensors` (6.9 GB)",
    "Hugging Face repository **stabilityai/cosxl** (you accept its terms there), on SDXL",
    "Stability AI Non-Commercial Research Community License: no commercial use",
    "20 steps, euler, text 5, image 1.5, 1024 px.",
)

EDIT_NOTE = """## Edit a picture with a sentence

1. **Load Image**: choose your picture, of any size.
2. **Instruct Edit**: write what to change, for example

   - make it black and white
   - make it warmer
   - turn it into a pencil sketch
   - add a red tint
   - leave it as it is

3. Press **Run**.

**Too little happens?** Raise `text_guidance_scale` (the model's own value stands behind -1), or lower \
`image_guidance_scale`. **Too much changes?** The other way round. Another `seed` gives another result.

`embedded: editor` is a small model that comes with this pack and knows simple edits. For everything else put a full \
model into `models/checkpoints` and choose it in **Load InstructPix2Pix**; the other templates of this pack say which.
"""

ADVANCED_NOTE = """## The edit, part by part

**Instruct Conditioning** makes three conditionings: *full* (instruction and picture), *image* (picture alone), \
*uncond* (neither). **Instruct Guider** weighs them:

`uncond + image_scale * (image - uncond) + text_scale * (full - image)`

Its advanced inputs hold intervals, rescale and projected guidance (APG).

**Sampler and steps** are the host's own. **Instruct Decode** gives back exactly the size of your picture.
"""

LORA_NOTE = """**LoRA slot.** Bypassed: the model passes through unchanged. To use a LoRA, choose its file, select the node \
and press Ctrl+B.
"""

MASK_NOTE = """**Mask.** White is edited; outside it every pixel stays as it was. Here it is a rectangle. To paint \
your own: right-click **Load Image**, *Open in Mask Editor*, and connect its MASK in place of this one, at both ends.
"""


def edit_graph(name: str, instruction: str, text: str, model: str = EMBEDDED, **options: Any) -> Workflow:
    """Load, edit in one node, save; with a note on the left. `options` change inputs of Instruct Edit."""
    links = {"model": [1, 0], "clip": [1, 1], "vae": [1, 2], "image": [2, 0]}
    nodes = [
        note(5, text, (0, 0), (420, 460)),
        Node(1, "LoadInstructPix2Pix", (460, 0), (400, 130), {"model_name": model}),
        Node(2, "LoadImage", (460, 190), (400, 390), {"image": INPUT_PICTURE}),
        Node(3, "InstructEdit", (900, 0), (400, 580), {**links, "instruction": instruction, **options}),
        Node(4, "SaveImage", (1340, 0), (500, 580), {"images": [3, 0], "filename_prefix": name}),
    ]
    return Workflow(name, nodes, instruction, model)


def advanced_graph() -> Workflow:
    """The parts of an edit on the host's advanced sampler, with a LoRA slot and a mask."""
    instruction = "make it black and white"
    conditioning = {"clip": [3, 1], "vae": [1, 2], "image": [2, 0], "mask": [12, 0], "instruction": instruction}
    guided = {"model": [3, 0], "full": [4, 0], "image": [4, 1], "uncond": [4, 2]}
    sampled = {"noise": [6, 0], "guider": [5, 0], "sampler": [7, 0], "sigmas": [8, 0], "latent_image": [4, 3]}
    decoded = {"vae": [1, 2], "latent": [9, 0], "image": [2, 0], "mask": [12, 0]}
    lora = {"model": [1, 0], "clip": [1, 1], "lora_name": ""}
    size = {"width": [10, 0], "height": [10, 1]}
    rectangle = {"destination": [11, 0], "source": [13, 0], "x": 192, "y": 288, "operation": "add"}
    nodes = [
        note(15, ADVANCED_NOTE, (0, 0), (360, 290)),
        note(16, MASK_NOTE, (0, 760), (360, 190)),
        note(17, LORA_NOTE, (400, 420), (300, 120)),
        Node(1, "LoadInstructPix2Pix", (400, 0), (300, 150), {"model_name": EMBEDDED}),
        Node(2, "LoadImage", (0, 350), (360, 350), {"image": INPUT_PICTURE}),
        Node(3, "LoraLoader", (400, 220), (300, 130), lora, "LoRA slot", BYPASSED),
        Node(4, "InstructConditioning", (740, 0), (340, 330), conditioning),
        Node(5, "InstructGuider", (1120, 0), (320, 390), guided),
        Node(6, "RandomNoise", (740, 390), (340, 90), {"noise_seed": 0}),
        Node(7, "KSamplerSelect", (740, 540), (340, 60), {"sampler_name": "euler_ancestral"}),
        Node(8, "BasicScheduler", (740, 660), (340, 110), {"model": [3, 0], "scheduler": "normal", "steps": 20}),
        Node(9, "SamplerCustomAdvanced", (1120, 450), (320, 130), sampled),
        Node(10, "GetImageSize", (400, 840), (260, 90), {"image": [2, 0]}),
        Node(11, "SolidMask", (700, 840), (250, 110), {"value": 0.0, **size}, "Black: keep everything"),
        Node(13, "SolidMask", (990, 840), (250, 110), {"value": 1.0, "width": 384, "height": 384}, "White: edit here"),
        Node(12, "MaskComposite", (1280, 840), (270, 130), rectangle, "White onto black"),
        Node(14, "InstructDecode", (1480, 0), (300, 130), decoded),
        Node(
            18, "SaveImage", (1480, 190), (480, 560), {"images": [14, 0], "filename_prefix": "instruct_edit_advanced"}
        ),
    ]
    return Workflow("instruct_edit_advanced", nodes, instruction)


def template(
    name: str, title: str, checkpoint: Checkpoint, instruction: str, also: str, tip: str, **options: Any
) -> Workflow:
    """An edit on a published checkpoint, with a note that says where it comes from and how to use it."""
    text = f"""## {title}

- **Model**: {checkpoint.place}
- **From**: {checkpoint.origin}
- **Licence**: {checkpoint.licence}
- **Settings**: {checkpoint.hint}

Put the model there, press R to refresh the lists, choose your picture in **Load Image**, press **Run**.

**Also try**: {also}

**Tip**: {tip}
"""
    return edit_graph(name, instruction, text, checkpoint.model_name, **options)


ANCESTRAL = {"sampler_name": "euler_ancestral", "scheduler": "normal"}
EULER = {"sampler_name": "euler", "scheduler": "normal"}


def scales(text: float, image: float, steps: int) -> dict[str, Any]:
    """The settings that differ from one application to the next."""
    return {"text_guidance_scale": text, "image_guidance_scale": image, "steps": steps}


def workflows() -> list[Workflow]:
    """Every workflow of the pack."""
    return [
        edit_graph("instruct_edit", "make it black and white", EDIT_NOTE),
        advanced_graph(),
        template(
            "style_and_medium",
            "Style and medium",
            INSTRUCT_PIX2PIX,
            "turn it into an oil painting",
            "*make it a Picasso painting* · *as a marble statue* · *make it look like a comic book*",
            "styles need freedom: lower the image scale towards 1.2 if the style is faint.",
            **scales(7.5, 1.3, 50),
            **ANCESTRAL,
        ),
        template(
            "season_weather_time",
            "Season, weather and time of day",
            INSTRUCT_PIX2PIX,
            "make it winter, with snow",
            "*make it autumn* · *add a thunderstorm* · *make it a sunny day* · *make it night* · *make it sunset*",
            "raise the image scale towards 1.8 if buildings or faces move.",
            **scales(7.5, 1.5, 50),
            **ANCESTRAL,
        ),
        template(
            "background",
            "Background",
            COSXL_EDIT,
            "change the background to a beach at sunset",
            "*put it in a forest* · *make the background a city at night* · *replace the sky with stars*",
            "to keep the subject to the pixel, paint it in the Mask Editor of Load Image, invert that mask, and connect "
            "it to `mask`.",
            **scales(5.0, 1.5, 20),
            **EULER,
        ),
        template(
            "object_swap",
            "Object swap",
            MAGICBRUSH,
            "swap the clouds with balloons",
            "*replace the apple with an orange* · *turn the dog into a cat* · *add a boat on the lake*",
            "name the old and the new object. A mask around the old one keeps everything else.",
            **scales(7.0, 1.5, 20),
            **ANCESTRAL,
        ),
        template(
            "material",
            "Material",
            INSTRUCT_PIX2PIX,
            "make the dress out of shiny gold",
            "*make the chair wooden* · *turn the car into glass* · *make the statue bronze*",
            "raise the text scale towards 10 for metals and glass; they need a strong push.",
            **scales(9.0, 1.5, 50),
            **ANCESTRAL,
        ),
        template(
            "make_up",
            "Make-up",
            INSTRUCT_PIX2PIX,
            "give her red lipstick and dark eye shadow",
            "*give her natural make-up* · *add freckles* · *give him face paint*",
            "crop to the face: the model sees 512 pixels. A high image scale keeps the person the same.",
            **scales(6.0, 1.5, 50),
            **ANCESTRAL,
        ),
        template(
            "try_on",
            "Try on clothes",
            INSTRUCT_PIX2PIX,
            "put her in a black leather jacket",
            "*make the shirt red* · *put him in a suit* · *have her wear a wedding dress* · *add sunglasses*",
            "a mask over the body keeps face and surroundings to the pixel.",
            **scales(7.5, 1.5, 50),
            **ANCESTRAL,
        ),
        template(
            "hair",
            "Hair",
            INSTRUCT_PIX2PIX,
            "give her short red hair",
            "*make his hair grey* · *give her curly hair* · *give him a beard*",
            "colour is easy, length is hard: for a new cut mask the hair and the space around it.",
            **scales(7.5, 1.4, 50),
            **ANCESTRAL,
        ),
        *pair_workflows(),
        *text_workflows(),
        *evaluation_workflows(),
    ]
