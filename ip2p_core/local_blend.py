"""Local blend: outside the words that change, an edited image is its source (Hertz et al. 2022, arXiv:2208.01626).

After each step the cross-attention of chosen words, summed over the steps so far, becomes a mask.
Shapes: B rows of a branch, T text tokens, C columns (wanted words, then words to leave out), H W latent height and width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from .errors import ConfigError
from .prompt_alignment import Caption


@dataclass(frozen=True, kw_only=True)
class LocalBlendSettings:
    """How maps become masks.

    Attributes:
        threshold: a cell belongs to the words where their map exceeds this part of its largest value, in [0, 1].
        subtract_threshold: the same for the words to leave out.
        start: from which fraction of the steps on; the published notebooks use 0 and 0.2.
        map_factor: latent cells per side of a map cell; 4 takes the 16 x 16 maps of a 64 x 64 latent.

    Raises:
        ConfigError: if a number is out of range; all of them at once.
    """

    threshold: float = 0.3
    subtract_threshold: float = 0.3
    start: float = 0.0
    map_factor: int = 4

    def __post_init__(self) -> None:
        mistakes = [
            f"{name} is {getattr(self, name):g}; it must lie between 0 and 1."
            for name in ("threshold", "subtract_threshold", "start")
            if not 0.0 <= getattr(self, name) <= 1.0
        ]
        if self.map_factor < 1:
            mistakes.append(f"map_factor is {self.map_factor}; it must be 1 or more latent cells.")
        if mistakes:
            raise ConfigError(*mistakes)


def choose_words(
    captions: Sequence[Caption],
    words: Sequence[Sequence[str]],
    subtracted: Sequence[Sequence[str]] | None = None,
) -> Tensor:
    """Mark the text tokens whose maps make the masks.

    Args:
        captions: the caption of each row of a branch.
        words: for each row the words that may change; a source row names its own words for the place.
        subtracted: for each row the words to leave out, or None for none at all.

    Returns:
        1 at the tokens of the words [B, T, C], else 0; C is 2 with words to leave out, otherwise 1.

    Raises:
        ConfigError: if a word does not occur in the caption of its row.
    """
    groups = [words] if subtracted is None else [words, subtracted]
    columns = torch.zeros(len(captions), captions[0].context_tokens, len(groups))
    for column, group in enumerate(groups):
        for row, (caption, chosen) in enumerate(zip(captions, group, strict=True)):
            for word in chosen:
                columns[row, list(caption.find(word)), column] = 1.0
    return columns


class LocalBlend:
    """The maps of one sampling run and the masks they make. Make a new object for every run.

    Args:
        columns_BTC: the words of each row, from `choose_words`.
        source_rows: for each row of a branch the row it is edited from.
        latent_size: height and width of the latents.
        settings: how maps become masks.
    """

    def __init__(
        self,
        columns_BTC: Tensor,
        source_rows: Sequence[int],
        latent_size: tuple[int, int],
        settings: LocalBlendSettings | None = None,
    ) -> None:
        self.columns_BTC = columns_BTC
        self.settings = settings or LocalBlendSettings()
        self._source_rows = list(source_rows)
        self._latent_size = latent_size
        self._map_size = tuple(math.ceil(side / self.settings.map_factor) for side in latent_size)
        self._sum: Tensor | None = None

    def wants(self, num_query_tokens: int) -> bool:
        """Say whether a layer's maps have the size that the masks are made from."""
        return num_query_tokens == math.prod(self._map_size)

    def add(self, maps: Tensor) -> None:
        """Add the maps [B, Q, C] of one layer of one call; the maps of all steps count."""
        self._sum = maps if self._sum is None else self._sum + maps

    def blend(self, latents: Tensor, step: int, num_steps: int) -> Tensor:
        """Put the source's latents back outside the words; call it after each step.

        Args:
            latents: the rows of one branch after the step [B, 4, H, W].
            step: index of the step just taken.
            num_steps: steps of the whole run.

        Returns:
            Latents of the same shape, source rows unchanged.

        Raises:
            ValueError: if no layer gave maps.
        """
        if step < int(self.settings.start * num_steps):
            return latents
        mask = self.make_mask().to(latents)
        source = latents[self._source_rows]
        return source + mask * (latents - source)

    def make_mask(self) -> Tensor:
        """Make the masks [B, 1, H, W] of the maps so far: True where a row's or its source's words are."""
        if self._sum is None:
            raise ValueError(
                f"No cross-attention layer has maps of {self._map_size[0]} x {self._map_size[1]} cells; local blend needs "
                "one. Choose another map_factor."
            )
        mask = self._threshold(self._sum[:, :, 0], self.settings.threshold, is_pooled=True)
        if self._sum.shape[2] > 1:
            mask = mask & ~self._threshold(self._sum[:, :, 1], self.settings.subtract_threshold, is_pooled=False)
        return mask

    def _threshold(self, map_BQ: Tensor, threshold: float, *, is_pooled: bool) -> Tensor:
        cells = map_BQ.reshape(len(map_BQ), 1, *self._map_size)
        if is_pooled:
            cells = max_pool2d(cells, 3, stride=1, padding=1)
        cells = interpolate(cells, size=self._latent_size)
        # a map without words is 0 / 0 here, which exceeds no threshold
        mask = cells / cells.amax((2, 3), keepdim=True) > threshold
        return mask[self._source_rows] | mask
