"""How the pairs of a prompt are made: what is drawn for each sample, and how its rows share attention.

Brooks et al. 2022 (arXiv:2211.09800, section 3.1.2): many samples of every prompt, each with its own share p of the steps
with shared attention, and its own guidance scale. A batch holds original, edited, original, edited and so on; with
`edits_per_source` above 1 several edited rows follow one original, which is then sampled once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch

from .attention_sharing import PublishedSharing, Sharing
from .cross_attention_edit import AttentionEdit, EditKind, make_attention_edit
from .errors import ConfigError
from .local_blend import LocalBlend, LocalBlendSettings, choose_words
from .pair_record import ImageBytes, PairRecord, pair_seed
from .prompt_alignment import Caption, Mapper
from .prompt_to_prompt import PromptToPrompt
from .randomness import generator
from .triplet import Triplet, find_fault, prompt_id

PairMode = Literal["published_code", "paper_text"]
PAIR_MODES: tuple[PairMode, ...] = ("published_code", "paper_text")
ReadCaption = Callable[[str], Caption]


@dataclass(frozen=True, kw_only=True)
class PaperTextSettings:
    """What the mode "paper_text" adds: Prompt-to-Prompt's own edits of cross-attention.

    Attributes:
        kind: "replace" swaps words one for one, "refine" adds or drops words, "reweight" only weights them.
        mapper: "aligned", or "reference" for the numbers of the published notebooks.
        self_replace: for which part of the steps self-attention is the original's, in [0, 1].
        self_replace_of: the same for triplets of an edit type.
        max_self_tokens: largest number of image tokens at which self-attention is shared, None for all.
        word_weights: word of the edited caption and the factor on its attention.
        blend_words: words of the caption, and of the edited caption, outside whose places the original stays; both empty
            for no local blend.
        blend: how their attention becomes a mask.

    Raises:
        ConfigError: naming every share that is out of range.
    """

    kind: EditKind = "refine"
    mapper: Mapper = "aligned"
    self_replace: float = 0.4
    self_replace_of: tuple[tuple[str, float], ...] = ()
    max_self_tokens: int | None = 16**2
    word_weights: tuple[tuple[str, float], ...] = ()
    blend_words: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    blend: LocalBlendSettings = field(default_factory=LocalBlendSettings)

    def __post_init__(self) -> None:
        shares = {"self_replace": self.self_replace} | {f"self_replace_of {k}": one for k, one in self.self_replace_of}
        if wrong := [f"{name} is {share:g}; it needs 0 to 1." for name, share in shares.items() if not 0 <= share <= 1]:
            raise ConfigError(*wrong)


@dataclass(frozen=True, kw_only=True)
class PairSettings:
    """How the samples of a prompt are drawn.

    Attributes:
        num_samples: pairs per prompt before any filter.
        p2p_range: lowest and highest p, as fractions of the steps.
        guidance_range: lowest and highest text guidance scale; both members of a pair have the same.
        mode: "published_code" shares self-attention as the published generator does, "paper_text" is Prompt-to-Prompt.
        paper_text: used by that mode alone.
        edits_per_source: approximate: so many samples in a row share noise, guidance scale and the sampled original, and
            differ in p; (1 + 1 / edits_per_source) / 2 of the work.

    Raises:
        ConfigError: if a number is out of range; all of them at once.
    """

    num_samples: int = 100
    p2p_range: tuple[float, float] = (0.1, 0.9)
    guidance_range: tuple[float, float] = (7.5, 15.0)
    mode: PairMode = "published_code"
    paper_text: PaperTextSettings = field(default_factory=PaperTextSettings)
    edits_per_source: int = 1

    def __post_init__(self) -> None:
        mistakes = []
        if self.num_samples < 1:
            mistakes.append(f"num_samples is {self.num_samples}; it must be at least 1, the paper makes 100.")
        low, high = self.p2p_range
        if not 0.0 <= low <= high <= 1.0:
            mistakes.append(f"The range of p is {low:g} to {high:g}; it needs 0 <= lowest <= highest <= 1.")
        low, high = self.guidance_range
        if not 0.0 <= low <= high:
            mistakes.append(f"The range of the guidance scale is {low:g} to {high:g}; it needs 0 <= lowest <= highest.")
        if self.edits_per_source < 1:
            mistakes.append(f"edits_per_source is {self.edits_per_source}; it must be at least 1, which is exact.")
        if self.mode not in PAIR_MODES:
            mistakes.append(f"The mode {self.mode!r} does not exist; choose one of {', '.join(PAIR_MODES)}.")
        if mistakes:
            raise ConfigError(*mistakes)


class PairDraw(NamedTuple):
    """One sample of a prompt before it is made."""

    prompt_id: str
    sample_index: int
    seed: int
    p2p_threshold: float
    text_guidance_scale: float


def draw_samples(
    triplet: Triplet, settings: PairSettings, run_seed: int, sample_indices: Iterable[int] | None = None
) -> list[PairDraw]:
    """Draw seed, p and guidance scale of samples, each a pure function of (run seed, prompt, sample index).

    Args:
        triplet: the texts.
        settings: the ranges.
        run_seed: of the whole run.
        sample_indices: which samples; all by default.

    Returns:
        One draw per index.

    Raises:
        ConfigError: if a text is empty or both captions are equal.
    """
    is_reweighted = settings.mode == "paper_text" and bool(settings.paper_text.word_weights)
    fault = find_fault(triplet, may_be_equal=is_reweighted)
    if fault:
        raise ConfigError(f"The {fault}; a pair needs a caption and another, edited caption. Correct the texts.")
    name = prompt_id(triplet)
    draws = []
    for index in range(settings.num_samples) if sample_indices is None else sample_indices:
        seed = pair_seed(run_seed, name, index - index % settings.edits_per_source)
        p = _uniform(pair_seed(run_seed, name, index), "p", *settings.p2p_range)
        scale = _uniform(seed, "guidance", *settings.guidance_range)
        draws.append(PairDraw(name, index, seed, p, scale))
    return draws


def _uniform(seed: int, purpose: str, low: float, high: float) -> float:
    share = torch.rand((), generator=generator(seed, purpose), dtype=torch.float64)
    return low + (high - low) * float(share)


class Row(NamedTuple):
    """One row of a batch."""

    draw: int
    """Which sample it belongs to; for a source row the first of its samples."""
    source: int
    """The row that it takes attention from: itself for an original."""


def batch_rows(draws: Sequence[PairDraw]) -> list[Row]:
    """Lay out a batch: each original once, followed by its edited rows.

    Args:
        draws: the samples; those of one prompt and seed in a row share their original.

    Returns:
        The rows.
    """
    rows: list[Row] = []
    for number, draw in enumerate(draws):
        before = draws[number - 1] if number else None
        if before is None or (before.prompt_id, before.seed) != (draw.prompt_id, draw.seed):
            rows.append(Row(number, len(rows)))
        rows.append(Row(number, rows[-1].source))
    return rows


def pair_rows(rows: Sequence[Row]) -> list[int]:
    """Number the rows of original, edited, original, edited and so on, originals repeated where they are shared."""
    return [one for row, (_, source) in enumerate(rows) if row != source for one in (source, row)]


def row_captions(rows: Sequence[Row], triplets: Sequence[Triplet]) -> list[str]:
    """The caption of every row, from the triplet of every sample."""
    return [
        triplets[draw].caption if row == source else triplets[draw].edited_caption
        for row, (draw, source) in enumerate(rows)
    ]


def make_sharing(
    draws: Sequence[PairDraw], triplets: Sequence[Triplet], settings: PairSettings, read_caption: ReadCaption
) -> Sharing:
    """Say what the rows of one batch share.

    In the mode "paper_text", p is the share of the steps in which cross-attention is the original's.

    Args:
        draws: the samples of the batch.
        triplets: the texts of every sample.
        settings: the mode and its options.
        read_caption: cuts a caption into its tokens.

    Returns:
        The sharing of the batch, whose rows are those of `batch_rows`.

    Raises:
        ConfigError: if the captions do not fit the kind of edit.
    """
    rows = batch_rows(draws)
    sources = tuple(row.source for row in rows)
    if settings.mode == "published_code":
        return PublishedSharing(
            source_rows=sources, p2p_thresholds=tuple(draws[row.draw].p2p_threshold for row in rows)
        )
    edits = [
        None if number == row.source else _edit(draws[row.draw], triplets[row.draw], settings.paper_text, read_caption)
        for number, row in enumerate(rows)
    ]
    max_self_tokens = settings.paper_text.max_self_tokens
    return PromptToPrompt(source_rows=sources, edits=tuple(edits), max_self_tokens=max_self_tokens)


def _edit(draw: PairDraw, triplet: Triplet, paper: PaperTextSettings, read_caption: ReadCaption) -> AttentionEdit:
    return make_attention_edit(
        paper.kind,
        read_caption(triplet.caption),
        read_caption(triplet.edited_caption),
        mapper=paper.mapper,
        word_weights=dict(paper.word_weights),
        cross_replace=draw.p2p_threshold,
        self_replace=dict(paper.self_replace_of).get(triplet.edit_type, paper.self_replace),
    )


def make_blend(
    draws: Sequence[PairDraw],
    triplets: Sequence[Triplet],
    settings: PairSettings,
    read_caption: ReadCaption,
    latent_size: tuple[int, int],
) -> LocalBlend | None:
    """Make the local blend of one batch, where the settings want one; it serves for one run of the sampler.

    Args:
        draws: the samples of the batch.
        triplets: the texts of every sample.
        settings: the mode and its options.
        read_caption: cuts a caption into its tokens.
        latent_size: height and width of the latents.

    Returns:
        The blend, or None.

    Raises:
        ConfigError: if a word does not occur, or words are given for one of the captions only.
    """
    paper = settings.paper_text
    if settings.mode != "paper_text" or not any(paper.blend_words):
        return None
    if not all(paper.blend_words):
        raise ConfigError(
            "Local blend has words for one caption only; name the words that may change in the caption and in the edited "
            "caption."
        )
    rows = batch_rows(draws)
    captions = [read_caption(text) for text in row_captions(rows, triplets)]
    words = [paper.blend_words[number != row.source] for number, row in enumerate(rows)]
    return LocalBlend(choose_words(captions, words), [row.source for row in rows], latent_size, paper.blend)


def make_record(
    draw: PairDraw, triplet: Triplet, settings: PairSettings, original: torch.Tensor, edited: torch.Tensor
) -> PairRecord:
    """Record a finished pair, its pictures as PNG bytes.

    Args:
        draw: the sample.
        triplet: its texts.
        settings: how it was made.
        original: picture [H, W, 3] in [0, 1].
        edited: picture [H, W, 3] in [0, 1].

    Returns:
        The record, without scores.
    """
    return PairRecord(
        prompt_id=draw.prompt_id,
        sample_index=draw.sample_index,
        triplet=triplet,
        seed=draw.seed,
        p2p_threshold=draw.p2p_threshold,
        text_guidance_scale=draw.text_guidance_scale,
        mode=settings.mode,
        scores=None,
        original=ImageBytes.from_tensor(original),
        edited=ImageBytes.from_tensor(edited),
    )
