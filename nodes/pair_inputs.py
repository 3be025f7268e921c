"""The inputs of the pair nodes, apart from those that the edit nodes have too."""

from typing import Any

from ..ip2p_core.cross_attention_edit import EditKind
from ..ip2p_core.errors import ConfigError
from ..ip2p_core.local_blend import LocalBlendSettings
from ..ip2p_core.pair_generation import PAIR_MODES, PairSettings, PaperTextSettings
from .schema import io, socket

EDIT_KINDS: tuple[EditKind, ...] = ("refine", "replace", "reweight")
MAPPERS = ("aligned", "reference")
LIMITS = {"16 x 16": 16**2, "32 x 32": 32**2, "none": None}


def text_inputs() -> list:
    """The three texts of a pair."""
    tooltips = {
        "caption": "What the original shows: 'a photograph of a girl riding a horse'. At most 75 tokens.",
        "instruction": "The edit in words: 'have her ride a dragon'. It is stored with the pairs and not sampled.",
        "edited_caption": "What the edited picture shows: 'a photograph of a girl riding a dragon'.",
    }
    return [
        socket(io.String.Input, name, multiline=True, default="", tooltip=tooltip) for name, tooltip in tooltips.items()
    ]


def _range_input(name: str, default: float, highest: float, step: float, tooltip: str):
    return socket(io.Float.Input, name, default=default, min=0.0, max=highest, step=step, round=0.001, tooltip=tooltip)


def range_inputs() -> list:
    """How many samples, and the ranges that they are drawn from."""
    return [
        socket(
            io.Int.Input,
            "num_samples",
            default=100,
            min=1,
            max=100_000,
            tooltip="Pairs per prompt before the filter. The paper makes 100 and keeps at most 4; 8 show how it works.",
        ),
        _range_input("p_min", 0.1, 1.0, 0.05, "Lowest share of the steps in which the pair shares attention."),
        _range_input(
            "p_max", 0.9, 1.0, 0.05, "Highest share. Large values keep more of the original, small ones allow more."
        ),
        _range_input("guidance_min", 7.5, 100.0, 0.5, "Lowest text guidance scale. The paper draws 7.5 to 15."),
        _range_input("guidance_max", 15.0, 100.0, 0.5, "Highest text guidance scale; both pictures have the same."),
    ]


def size_inputs() -> list:
    """Size of the pictures, of a batch and of the output."""
    return [
        *(
            socket(
                io.Int.Input,
                name,
                default=0,
                min=0,
                max=4096,
                step=8,
                tooltip=f"{name.capitalize()} of the pictures in pixels. 0 takes the model's own (512 for SD1.5).",
            )
            for name in ("width", "height")
        ),
        socket(
            io.Int.Input,
            "batch_size",
            default=4,
            min=1,
            max=256,
            tooltip="Pairs that are sampled together. More is faster on a GPU and needs more memory; pairs stay the same.",
        ),
        socket(
            io.Int.Input,
            "num_shown",
            default=16,
            min=1,
            max=100_000,
            tooltip="How many pairs come out as images. 'pairs' holds all of them, as PNG, which needs little memory.",
        ),
    ]


def mode_inputs() -> list:
    """How attention is shared."""
    return [
        socket(
            io.Combo.Input,
            "mode",
            options=list(PAIR_MODES),
            default=PAIR_MODES[0],
            tooltip=(
                "'published_code' shares self-attention, as the published generator does. 'paper_text' edits "
                "cross-attention as Prompt-to-Prompt does."
            ),
        ),
        socket(
            io.Combo.Input,
            "edit_kind",
            options=list(EDIT_KINDS),
            default=EDIT_KINDS[0],
            optional=True,
            advanced=True,
            tooltip="paper_text: 'refine' adds or drops words, 'replace' swaps words one for one, 'reweight' weights them.",
        ),
        socket(
            io.Combo.Input,
            "mapper",
            options=list(MAPPERS),
            default=MAPPERS[0],
            optional=True,
            advanced=True,
            tooltip="paper_text: how words find each other. 'reference' repeats the published notebooks' misalignment.",
        ),
        socket(
            io.Float.Input,
            "self_replace",
            default=0.4,
            min=0.0,
            max=1.0,
            step=0.05,
            round=0.001,
            optional=True,
            advanced=True,
            tooltip="paper_text: share of the steps in which self-attention is the original's. More keeps more layout.",
        ),
        socket(
            io.Combo.Input,
            "self_attention_limit",
            options=list(LIMITS),
            default="16 x 16",
            optional=True,
            advanced=True,
            tooltip="paper_text: largest layer, in latent cells, whose self-attention is shared.",
        ),
        socket(
            io.String.Input,
            "word_weights",
            default="",
            optional=True,
            advanced=True,
            tooltip="paper_text: words of the edited caption and their weights: 'fluffy: 3, snow: -1'. 1 changes nothing.",
        ),
        *(
            socket(io.String.Input, name, default="", optional=True, advanced=True, tooltip=tooltip)
            for name, tooltip in (
                (
                    "blend_words",
                    "paper_text: local blend. Words of the caption, with commas, where the picture may change: 'cat'. "
                    "Everywhere else it stays the original. Empty: off.",
                ),
                (
                    "blend_edited_words",
                    "paper_text: local blend. The same places in words of the edited caption: 'dog'.",
                ),
            )
        ),
        socket(
            io.Int.Input,
            "blend_map_factor",
            default=4,
            min=1,
            max=64,
            optional=True,
            advanced=True,
            tooltip="paper_text: latent cells per cell of the word maps. 4 fits SD at 512 px (maps of 16 x 16).",
        ),
    ]


def read_settings(  # noqa: PLR0913
    num_samples: int,
    p_min: float,
    p_max: float,
    guidance_min: float,
    guidance_max: float,
    mode: Any,
    *,
    edit_kind: Any = "refine",
    mapper: Any = "aligned",
    self_replace: float = 0.4,
    self_attention_limit: str = "16 x 16",
    word_weights: str = "",
    blend_words: str = "",
    blend_edited_words: str = "",
    blend_map_factor: int = 4,
) -> PairSettings:
    """Turn the widgets into the core's settings."""
    return PairSettings(
        num_samples=num_samples,
        p2p_range=(p_min, p_max),
        guidance_range=(guidance_min, guidance_max),
        mode=mode,
        paper_text=PaperTextSettings(
            kind=edit_kind,
            mapper=mapper,
            self_replace=self_replace,
            max_self_tokens=LIMITS[self_attention_limit],
            word_weights=read_weights(word_weights),
            blend_words=(_words(blend_words), _words(blend_edited_words)),
            blend=LocalBlendSettings(map_factor=blend_map_factor),
        ),
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def read_weights(text: str) -> tuple[tuple[str, float], ...]:
    """Read 'word: 2, other words: -1'.

    Raises:
        ConfigError: naming the part that is no word with a number.
    """
    weights = []
    for part in filter(None, (part.strip() for part in text.replace("\n", ",").split(","))):
        word, colon, number = part.rpartition(":")
        try:
            weights.append((word.strip(), float(number)))
        except ValueError:
            colon = ""
        if not colon or not word.strip():
            raise ConfigError(
                f'word_weights holds "{part}"; each part must be a word, a colon and a number, as in fluffy: 3.'
            )
    return tuple(weights)
