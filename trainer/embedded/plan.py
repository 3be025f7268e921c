"""How long and on how much the embedded editor is trained."""

from __future__ import annotations

from dataclasses import dataclass, field

from .tune import Search


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run of `ip2p train`."""

    size: int
    """Side of the pictures in pixels."""
    num_originals: int
    """Photographs and textures, each with six global edits."""
    num_scenes: int
    """Rendered scenes, each with three edits and their inverses."""
    steps: int
    batch_size: int = 16
    learning_rate: float = 1.2e-3
    is_compiled: bool = False
    """Worth it from a few thousand steps on."""

    @property
    def name(self) -> str:
        """What run and model are called."""
        return f"editor_{self.size}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and on how much to train; times are minutes of wall time."""

    autoencoder_minutes: float = 35.0
    decoder_minutes: float = 0.0
    """Afterwards: the decoder alone, while latents stay what they are; 0 leaves it as it is."""
    stages: tuple[Stage, ...] = (
        Stage(size=64, num_originals=2400, num_scenes=4200, steps=14_000, is_compiled=True),
        Stage(size=128, num_originals=300, num_scenes=550, steps=1_000, learning_rate=3e-4),
        Stage(size=256, num_originals=80, num_scenes=160, steps=250, batch_size=8, learning_rate=2e-4),
    )
    working_resolution: int = 256
    """Of the model file: what pictures are edited at, whatever sizes it was trained at."""
    seed: int = 0
    threads: int = 2
    precision: str = "fp32"
    """Of `ip2p train`; "bf16" where the processor computes with it."""
    pool_size: int = 5000
    is_compiled: bool = True
    search: Search = field(default_factory=Search)
    """How the default settings are found."""


SMOKE = Plan(
    autoencoder_minutes=0.05,
    decoder_minutes=0.02,
    stages=(
        Stage(size=32, num_originals=2, num_scenes=4, steps=3, batch_size=4),
        Stage(size=64, num_originals=2, num_scenes=4, steps=2, batch_size=2),
    ),
    working_resolution=64,
    pool_size=16,
    is_compiled=False,
    search=Search(num_photos=1, num_scenes=1, text_scales=(1.0,), image_scales=(1.0,), samplers=(("euler", 2),)),
)
"""A few seconds of every stage: checks wiring, not quality."""
