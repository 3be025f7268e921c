"""Images to latents and back with the host's VAE."""

from __future__ import annotations

import torch
from torch import Tensor

from ...ip2p_core.errors import BadImage, BadImageSize, ModelMismatch
from ...ip2p_core.image_size import Extent, extent_of, latent_extent
from ...ip2p_core.sampling import require_finite


def as_rgb(image: Tensor) -> Tensor:
    """Return images [B, H, W, C] as [B, H, W, 3] in float32: grey is repeated, alpha is left out.

    Raises:
        BadImage: if the tensor is not a batch of images.
    """
    if image.ndim != 4 or image.shape[-1] not in (1, 2, 3, 4) or image.shape[0] == 0:
        raise BadImage(
            f'The tensor on "image" has the shape {tuple(image.shape)}; a batch [number, height, width, 3] is needed. '
            "Connect an IMAGE."
        )
    colour = image[..., :1].expand(*image.shape[:-1], 3) if image.shape[-1] < 3 else image[..., :3]
    return colour.float()


def encode(vae, image: Tensor) -> Tensor:
    """Encode images whose sides fit the VAE to the mode of the posterior, unscaled.

    Raises:
        ModelMismatch: if no VAE is connected, or it is not one of images with 4 latent channels.
        BadImageSize: if the VAE's latents do not have the size that its factor says (the host crops silently).
    """
    if vae is None or getattr(vae, "first_stage_model", None) is None:
        raise ModelMismatch('There is no autoencoder on "vae"; connect the VAE of Load InstructPix2Pix.')
    factor = vae.spacial_compression_encode()
    expected = latent_extent(extent_of(image), factor)
    latents = vae.encode(image)
    if latents.ndim != 4 or latents.shape[1] != 4:
        raise ModelMismatch(
            f"The VAE makes latents of the shape {tuple(latents.shape[1:])}; InstructPix2Pix needs 4 channels. "
            "Connect the VAE of Load InstructPix2Pix."
        )
    seen = Extent(width=latents.shape[-1], height=latents.shape[-2])
    if seen != expected:
        raise BadImageSize(f"The VAE made latents of {seen} cells where {expected} were expected. Connect another VAE.")
    return require_finite(latents.float(), "the autoencoder")


def decode(vae, latents: Tensor) -> Tensor:
    """Decode latents to images [B, H, W, 3] in [0, 1].

    Raises:
        ModelMismatch: if no VAE is connected.
        NonFiniteLatents: if the decoded picture contains NaN (an autoencoder that overflows in half precision).
    """
    if vae is None or getattr(vae, "first_stage_model", None) is None:
        raise ModelMismatch('There is no autoencoder on "vae"; connect the VAE of Load InstructPix2Pix.')
    return require_finite(torch.as_tensor(vae.decode(latents)).float(), "the autoencoder's decoder")
