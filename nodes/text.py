"""Captions to instructions: the language-model stage on the canvas."""

import io as bytes_io

from typing_extensions import override

from ..ip2p_core.errors import BadTriplet, ConfigError
from ..ip2p_core.image_tensor import to_pil
from ..ip2p_core.instruction_writer import (
    TEMPLATE,
    VISION_TEMPLATE,
    InstructionServer,
    ServerSettings,
    parse_reply,
    write_edit,
)
from ..ip2p_core.instruction_writer.client import KEY_VARIABLE, URL_VARIABLE, from_environment
from ..ip2p_core.instruction_writer.grammar import RULES
from ..ip2p_core.instruction_writer.prompts import fill_template, is_identity
from ..ip2p_core.randomness import hash64
from .schema import CATEGORY, io, schema, socket

GRAMMAR, SERVER = "grammar (offline)", "language-model server"
ANY = "any"
ALIASES = ["ip2p triplets", "caption", "instruction", "llm", "language model", "prompt"]
NUM_TRIES = 4


class CaptionEdit(io.ComfyNode):
    """A caption to an instruction and the caption of the edited picture."""

    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CaptionEdit",
            display_name="Caption Edit",
            category=CATEGORY,
            description=(
                "Invents an edit of a picture from its caption: the instruction, and the caption afterwards. By rules, "
                "offline; or by any OpenAI-compatible server (vLLM, SGLang, llama.cpp, Ollama, hosted), whose address "
                f"and key come from the environment variables {URL_VARIABLE} and {KEY_VARIABLE}. For many captions use "
                "the command ip2p triplets."
            ),
            search_aliases=ALIASES,
            inputs=[
                socket(
                    io.String.Input,
                    "caption",
                    default="",
                    multiline=True,
                    tooltip="What the picture shows. May be empty where an image is connected to a model that sees.",
                ),
                socket(
                    io.Combo.Input,
                    "backend",
                    options=[GRAMMAR, SERVER],
                    default=GRAMMAR,
                    tooltip="The grammar needs no network and knows the embedded generator's coloured shapes.",
                ),
                socket(
                    io.String.Input,
                    "model",
                    default="",
                    tooltip="Name of the model at the server. The grammar needs none.",
                ),
                socket(
                    io.Combo.Input,
                    "edit_type",
                    options=[ANY, *RULES],
                    default=ANY,
                    tooltip="Kind of edit that the grammar writes. A model is told in the template.",
                ),
                socket(
                    io.Int.Input,
                    "seed",
                    default=0,
                    min=0,
                    max=2**63 - 1,
                    control_after_generate=True,
                    tooltip="The same caption and seed give the same edit, as far as the server allows.",
                ),
                socket(
                    io.Float.Input,
                    "temperature",
                    default=0.7,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    advanced=True,
                    tooltip="Of the model. 0.7 is the paper's; 0 takes the likeliest words.",
                ),
                socket(
                    io.String.Input,
                    "template",
                    default=TEMPLATE,
                    multiline=True,
                    advanced=True,
                    tooltip="The question to the model. {caption} is replaced by the caption.",
                ),
                io.Image.Input(
                    "image", optional=True, tooltip="For models that see: the picture; the first of a batch."
                ),
            ],
            outputs=[
                io.String.Output(display_name="instruction"),
                io.String.Output(display_name="edited_caption"),
                io.String.Output(display_name="caption"),
                io.String.Output(display_name="question"),
            ],
        )

    @classmethod
    @override
    def execute(
        cls,
        caption: str,
        backend: str,
        model: str,
        edit_type: str,
        seed: int,
        temperature: float,
        template: str,
        image=None,
    ) -> io.NodeOutput:
        caption = caption.strip()
        if not caption and (image is None or backend == GRAMMAR):
            raise ConfigError(
                "The caption is empty. Write what the picture shows, or connect an image for a model that sees."
            )
        question = fill_template(VISION_TEMPLATE if image is not None and template == TEMPLATE else template, caption)
        if backend == GRAMMAR:
            written = write_edit(caption, seed, [] if edit_type == ANY else [edit_type])
            return io.NodeOutput(written.instruction, written.edited_caption, caption, question)
        edit = _ask(question, caption, model, temperature, seed, image)
        return io.NodeOutput(edit.instruction, edit.edited_caption, caption or edit.caption, question)


class ParseTriplet(io.ComfyNode):
    """A language model's answer to an instruction and an edited caption."""

    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ParseTriplet",
            display_name="Parse Triplet",
            category=CATEGORY,
            description=(
                "Reads instruction and edited caption from what any language-model node wrote: JSON, alone or within other "
                "text, or the published format of fine-tuned models. Caption Edit's output 'question' is what to ask."
            ),
            search_aliases=ALIASES,
            inputs=[
                socket(
                    io.String.Input,
                    "answer",
                    default="",
                    multiline=True,
                    tooltip='What the model wrote, for example {"instruction": "make it blue", "edited_caption": "a blue circle"}.',
                ),
                socket(
                    io.String.Input,
                    "caption",
                    default="",
                    tooltip="Of the original; an answer that leaves it as it is is refused. Empty: not checked.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="instruction"),
                io.String.Output(display_name="edited_caption"),
            ],
        )

    @classmethod
    @override
    def execute(cls, answer: str, caption: str) -> io.NodeOutput:
        edit = _read(answer, caption)
        return io.NodeOutput(edit.instruction, edit.edited_caption)


def _ask(question: str, caption: str, model: str, temperature: float, seed: int, image):
    base_url, key = from_environment()
    if not base_url:
        raise ConfigError(
            f"There is no language-model server: the environment variable {URL_VARIABLE} is not set. Set it before ComfyUI "
            f"starts, for instance to http://127.0.0.1:8000/v1, or choose the backend '{GRAMMAR}'."
        )
    server = InstructionServer(
        ServerSettings(base_url=base_url, api_key=key, model=model, temperature=temperature, retries=3)
    )
    picture = None
    if image is not None:
        content = bytes_io.BytesIO()
        to_pil(image[0]).save(content, "PNG")
        picture = content.getvalue()
    fault: BadTriplet | None = None
    for attempt in range(NUM_TRIES):
        reply = server.ask(question, seed=hash64(seed, "try", attempt), image=picture, wants_caption=not caption)
        try:
            return _read(reply.text, caption)
        except BadTriplet as error:
            fault = error
    raise BadTriplet(f"{NUM_TRIES} answers of {model} were of no use; the last: {fault}")


def _read(answer: str, caption: str):
    try:
        edit = parse_reply(answer)
    except BadTriplet as fault:
        shown = answer if len(answer) < 200 else f"{answer[:200]}..."
        raise BadTriplet(
            f"The answer {shown!r} holds no edit ({fault}). It needs JSON with instruction and edited_caption."
        ) from None
    if not (edit.instruction and edit.edited_caption):
        raise BadTriplet(f"The answer has an empty text: {edit.instruction!r}, {edit.edited_caption!r}. Ask again.")
    if caption and is_identity(caption, edit.edited_caption):
        raise BadTriplet(f"The edited caption is the caption ({caption!r}). Ask again, with another seed.")
    return edit
