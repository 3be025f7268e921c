"""What comes from open_clip: CLIP's byte-pair tokenizer, and the networks of CLIP models.

The tokenizer needs open_clip's vocabulary file alone: no network, no second copy. For the text encoders of diffusion
models the text is cleaned as the tokenizers of Stable Diffusion do it (transformers' `CLIPTokenizer`, ComfyUI's
`SDTokenizer`): Unicode NFC, every run of white space one space, lower case character by character. The one difference
left: the control characters U+001C to U+001F count as white space. open_clip's own cleaning (ftfy and HTML entities) gives
other ids; CLIP models were trained with it, so they get it.

Shapes: B pictures or texts, D length of a feature.
"""

from __future__ import annotations

import copy
import importlib.util
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .errors import CheckpointError, ConfigError, ModelMismatch

if TYPE_CHECKING:
    from open_clip.tokenizer import SimpleTokenizer

START_ID = 49406
END_ID = 49407
VOCABULARY_SIZE = 49408
CONTEXT_LENGTH = 77
SPECIAL_TOKENS = {"<|startoftext|>": START_ID, "<|endoftext|>": END_ID}

# Around a special token, and where open_clip's pattern would find its own special tokens or an 's that is a long s.
_BOUNDARIES = re.compile(r"(<\|startoftext\|>|<\|endoftext\|>)|(?<=<)(?=start_of_text>|end_of_text>)|(?<=')(?=\u017f)")


@lru_cache(maxsize=1)
def _tokenizer() -> SimpleTokenizer:
    """Load open_clip's tokenizer file alone: the whole package would load torchvision and timm, which takes seconds."""
    package = importlib.util.find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        raise ConfigError("The package open_clip is missing; install it with: pip install open_clip_torch")
    path = Path(package.submodule_search_locations[0]) / "tokenizer.py"
    spec = importlib.util.spec_from_file_location("_ip2p_open_clip_tokenizer", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"The tokenizer of open_clip is not at {path}; install open_clip_torch again.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tokenizer: SimpleTokenizer = module.SimpleTokenizer()
    return tokenizer


def vocabulary() -> tuple[dict[str, int], list[str]]:
    """Return token -> id, and the merges "LEFT RIGHT" in their order, as CLIP's tokenizers store them."""
    tokenizer = _tokenizer()
    tokens = {token: number for token, number in tokenizer.encoder.items() if number < START_ID}
    return {**tokens, **SPECIAL_TOKENS}, [" ".join(pair) for pair in tokenizer.bpe_ranks]


def _clean(text: str) -> str:
    text = re.sub(r"\s+", " ", unicodedata.normalize("NFC", text))
    return "".join(character.lower() for character in text)


def encode(text: str) -> list[int]:
    """Return the ids of the whole text, without start, end, padding or truncation."""
    tokenizer = _tokenizer()
    ids: list[int] = []
    for part in filter(None, _BOUNDARIES.split(_clean(text))):
        if part in SPECIAL_TOKENS:
            ids.append(SPECIAL_TOKENS[part])
            continue
        for word in tokenizer.pat.findall(part):
            symbols = "".join(tokenizer.byte_encoder[byte] for byte in word.encode("utf-8"))
            ids.extend(tokenizer.encoder[token] for token in tokenizer.bpe(symbols).split(" "))
    return ids


def token_strings(text: str) -> tuple[str, ...]:
    """Return the whole text as byte pair strings, "</w>" at the end of a word, without start, end or truncation."""
    decoder = _tokenizer().decoder
    return tuple(decoder[i] for i in encode(text))


def count_tokens(text: str) -> int:
    """Return the length of a text in tokens, with start and end, before any truncation."""
    return len(encode(text)) + 2


def tokenize(text: str, *, pad_id: int = END_ID, context_length: int = CONTEXT_LENGTH) -> list[int]:
    """Turn a text into the ids that the text encoder reads; what does not fit is cut.

    Args:
        text: raw text, no weighting syntax.
        pad_id: what fills the rest: 49407 for SD1.x and SDXL's first encoder, 0 for SD2.x and SDXL's second.
        context_length: number of ids, start and end included.

    Returns:
        The ids [context length].
    """
    ids = [START_ID, *encode(text)[: context_length - 2], END_ID]
    return ids + [pad_id] * (context_length - len(ids))


def tokenize_for_clip(texts: Sequence[str], context_length: int) -> Tensor:
    """Turn texts into the ids [B, context length] that CLIP models read, cleaned as open_clip does it."""
    ids: Tensor = _tokenizer()(list(texts), context_length=context_length)
    return ids


def cut_for_clip(text: str, context_length: int) -> str:
    """Return the end of a text that `tokenize_for_clip` leaves out, in lower case; empty if nothing."""
    tokenizer = _tokenizer()
    cut: str = tokenizer.decode(tokenizer.encode(text)[context_length - 2 :])
    return cut.strip()


class Architecture(NamedTuple):
    """A kind of CLIP model."""

    model_cfg: dict[str, Any]  # open_clip's description: embed_dim, vision_cfg, text_cfg, quick_gelu, ...
    preprocess_cfg: dict[str, Any]  # mean and std of the training pictures; empty means OpenAI's


def _open_clip() -> Any:
    """Import the whole package, on use."""
    try:
        import open_clip
    except ImportError as error:
        raise ConfigError(
            f"The package open_clip cannot be loaded ({error}); install it with: pip install open_clip_torch"
        ) from None
    return open_clip


def named_architecture(name: str) -> Architecture:
    """Look up one of open_clip's architectures, with the mean and std that all of open_clip's weights for it share.

    Args:
        name: open_clip's name.

    Returns:
        The architecture.

    Raises:
        ConfigError: if there is none of that name, or open_clip is missing.
    """
    open_clip = _open_clip()
    if name not in open_clip.list_models():
        raise ConfigError(
            f"open_clip has no architecture {name!r}. Use one of its names, for example ViT-B-32, ViT-L-14 or "
            "ViT-L-14-quickgelu."
        )
    tags = (open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name))
    statistics = {(tuple(tag["mean"]), tuple(tag["std"])) for tag in tags}
    preprocess = dict(zip(("mean", "std"), statistics.pop(), strict=True)) if len(statistics) == 1 else {}
    return Architecture(open_clip.get_model_config(name), preprocess)


def build_clip(model_cfg: Mapping[str, Any], name: str) -> Any:
    """Make an open_clip model with random weights; nothing is downloaded.

    Args:
        model_cfg: open_clip's description of the architecture.
        name: what messages call the model.

    Returns:
        The model, a torch module.

    Raises:
        ModelMismatch: if it has no text tower or image tower, or does not read CLIP's own tokens.
        CheckpointError: if open_clip cannot build it.
        ConfigError: if open_clip is missing.
    """
    open_clip, settings = _open_clip(), copy.deepcopy(dict(model_cfg))
    text_cfg, vision_cfg = settings.get("text_cfg"), settings.get("vision_cfg")
    if not text_cfg or not vision_cfg:
        raise ModelMismatch(
            f"{name} describes no {'image' if text_cfg else 'text'} tower; scoring pictures against texts needs both. "
            "Choose a whole CLIP model."
        )
    other = [key for key in ("hf_model_name", "hf_tokenizer_name", "tokenizer_kwargs") if text_cfg.get(key)]
    if other or "multimodal_cfg" in settings or text_cfg.get("vocab_size", VOCABULARY_SIZE) != VOCABULARY_SIZE:
        raise ModelMismatch(
            f"{name} does not read CLIP's own {VOCABULARY_SIZE} tokens, or is a captioning model. Choose a CLIP model "
            "such as ViT-B-32 or ViT-L-14."
        )
    vision_cfg["timm_model_pretrained"] = False
    model_class = open_clip.CustomTextCLIP if settings.pop("custom_text", False) else open_clip.CLIP
    try:
        with torch.random.fork_rng(devices=[]):
            return model_class(**settings)
    except (TypeError, ValueError, RuntimeError, AssertionError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"open_clip {open_clip.__version__} cannot build the architecture of {name} ({error}). Update "
            "open_clip_torch, or choose another model."
        ) from None


def encode_with_tokens(model: Any, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
    """Encode pictures; gradients pass through.

    Args:
        model: an open_clip model.
        pixels: [B, 3, H, W], prepared for the model.

    Returns:
        Features [B, D], not normalised, and the tokens [B, T, C] before the last block, the one of the class first; None
        where the image tower is no vision transformer of open_clip's own.
    """
    transformer = getattr(model.visual, "transformer", None)
    if transformer is None:
        return model.encode_image(pixels), None
    seen: list[Tensor] = []
    hook = transformer.resblocks[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        features = model.encode_image(pixels)
    finally:
        hook.remove()
    return features, seen[0] if getattr(transformer, "batch_first", False) else seen[0].transpose(0, 1)
