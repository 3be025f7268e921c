"""The role tags inside CONDITIONING, so that the three conditionings cannot be mixed up unnoticed."""

from __future__ import annotations

from ...ip2p_core.errors import ConfigError
from .notices import warn

ROLE = "ip2p_role"
IMAGE_LATENTS = "concat_latent_image"
ROLES = ("full", "image", "uncond")


def check_roles(full: list, image: list, uncond: list) -> None:
    """Refuse conditionings that sit on the wrong socket.

    Raises:
        ConfigError: naming the socket and what is connected to it.
    """
    for role, conditioning in zip(ROLES, (full, image, uncond), strict=True):
        check_role(conditioning, role, socket=role)


def check_role(conditioning: list, role: str, socket: str) -> None:
    """Check one conditioning: its tag, its image latents, and that it holds at every step.

    Raises:
        ConfigError: for another role's tag, missing image latents, or image latents on `uncond`.
    """
    if not conditioning:
        raise ConfigError(
            f'The conditioning on "{socket}" is empty; connect the output "{role}" of Instruct Conditioning.'
        )
    for _, options in conditioning:
        check_options(options, role, socket)


def check_options(options: dict, role: str, socket: str) -> None:
    """Check one entry of a conditioning; see check_role.

    Raises:
        ConfigError: see check_role.
    """
    seen = options.get(ROLE)
    if seen is None:
        warn(
            f'The conditioning on "{socket}" has lost its role on the way; it is taken for "{role}". Check the wiring.'
        )
    elif seen != role:
        raise ConfigError(
            f'The conditioning on "{socket}" is "{seen}"; "{role}" is needed. '
            f'Connect the output "{role}" of Instruct Conditioning.'
        )
    has_image = options.get(IMAGE_LATENTS) is not None
    if has_image == (role == "uncond"):
        found = "holds image latents" if has_image else "holds no image latents"
        needed = "must hold none" if has_image else "needs them"
        raise ConfigError(
            f'The conditioning on "{socket}" {found}; "{role}" {needed}. '
            f'Connect the output "{role}" of Instruct Conditioning.'
        )
    if "start_percent" in options or "end_percent" in options:
        warn(
            f'The conditioning on "{socket}" is limited to part of the steps and predicts zero elsewhere; '
            "use the intervals of Instruct Guider instead."
        )
