"""Pairs of pictures from triplets of texts: reading triplets, and sampling with shared attention."""

from typing_extensions import override

from ..ip2p_core.errors import Ip2pError
from ..ip2p_core.triplet import Triplet, deduplicate, read_triplets
from . import pair_steps
from .comfy_adapter import folders
from .edit_inputs import schedule_inputs
from .pair_inputs import mode_inputs, range_inputs, read_settings, size_inputs, text_inputs
from .schema import CATEGORY, PAIR_ALIASES, Pairs, io, schema, socket


class LoadTriplets(io.ComfyNode):
    """Caption, instruction and edited caption from a file."""

    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="LoadTriplets",
            display_name="Load Triplets",
            category=CATEGORY,
            description=(
                "Reads triplets of caption, instruction and edited caption from a JSONL file in the input folder, one "
                "object a line. What follows runs once for every triplet. Duplicates are left out."
            ),
            search_aliases=[*PAIR_ALIASES, "captions", "jsonl"],
            inputs=[
                socket(
                    io.Combo.Input,
                    "file",
                    options=folders.triplet_files(),
                    tooltip="A .jsonl file in ComfyUI's input folder. The fields input, edit and output are read too.",
                ),
                socket(
                    io.Int.Input,
                    "first",
                    default=0,
                    min=0,
                    max=100_000_000,
                    tooltip="How many triplets to pass over at the start.",
                ),
                socket(
                    io.Int.Input,
                    "count",
                    default=0,
                    min=0,
                    max=100_000_000,
                    tooltip="How many triplets to read at most. 0 reads all.",
                ),
                socket(
                    io.Combo.Input,
                    "malformed_lines",
                    options=["skip", "raise"],
                    default="skip",
                    tooltip="Lines that are no usable triplet: 'skip' lists them in the report, 'raise' stops.",
                ),
            ],
            outputs=[
                *(
                    io.String.Output(display_name=name, is_output_list=True)
                    for name in ("caption", "instruction", "edited_caption")
                ),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        """Say in one sentence why a file cannot be read."""
        try:
            folders.resolve_input(file or "")
        except Ip2pError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str, **_options):
        """Read again when the file changed."""
        return folders.stamp(folders.resolve_input(file))

    @classmethod
    @override
    def execute(cls, file: str, first: int, count: int, malformed_lines: str) -> io.NodeOutput:
        content = read_triplets(folders.resolve_input(file), malformed_lines)
        triplets = deduplicate(content.triplets)[first : first + count if count else None]
        texts = ([getattr(one, name) for one in triplets] for name in ("caption", "instruction", "edited_caption"))
        return io.NodeOutput(*texts, content.report())


class Prompt2PromptPair(io.ComfyNode):
    """Pairs of pictures from a caption and an edited caption."""

    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="Prompt2PromptPair",
            display_name="Prompt-to-Prompt Pair",
            category=CATEGORY,
            description=(
                "Makes training pairs with a text-to-image model: both pictures of a pair start from one noise and share "
                "attention in the first steps, so that they differ only where their captions do. A cancelled run keeps "
                "its finished pairs and goes on with them."
            ),
            search_aliases=PAIR_ALIASES,
            inputs=[
                io.Model.Input("model", tooltip="A text-to-image model: SD1.x, SD2.x or SDXL (4 input channels)."),
                io.Clip.Input("clip", tooltip="The text encoder of the model."),
                io.Vae.Input("vae", tooltip="The autoencoder of the model."),
                *text_inputs(),
                *range_inputs(),
                *schedule_inputs(),
                *size_inputs(),
                *mode_inputs(),
            ],
            outputs=[
                io.Image.Output(display_name="original"),
                io.Image.Output(display_name="edited"),
                Pairs.Output(display_name="pairs"),
            ],
        )

    @classmethod
    @override
    def execute(
        cls, model, clip, vae, caption, instruction, edited_caption,
        seed, steps, sampler_name, scheduler, width, height, batch_size, num_shown, **drawn,
    ) -> io.NodeOutput:  # fmt: skip
        plan = pair_steps.PairPlan(
            seed=seed, steps=steps, sampler_name=sampler_name, scheduler=scheduler,
            width=width, height=height, batch_size=batch_size,
        )  # fmt: skip
        triplet = Triplet(caption, instruction, edited_caption)
        pairs = pair_steps.make_pairs(model, clip, vae, triplet, read_settings(**drawn), plan)
        return io.NodeOutput(*pair_steps.show(pairs, num_shown), pairs)
