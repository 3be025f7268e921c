"""The shapes of the embedded editor and generator: the real classes, at most 12 MB together in half precision."""

from __future__ import annotations

from typing import Any

VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [64, 64, 64],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 128,
}
TEXT_ENCODER: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 49407,
}
UNET: dict[str, Any] = {
    "sample_size": 32,
    "in_channels": 8,
    "out_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": [64, 64, 64],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "cross_attention_dim": TEXT_ENCODER["hidden_size"],
    "attention_head_dim": 4,
    "norm_num_groups": 8,  # not 32: groups of two channels erase the mean colour of a picture (docs/adr/0006)
}
GENERATOR_UNET: dict[str, Any] = {
    **UNET,
    "in_channels": 4,
    "block_out_channels": [48, 64, 96],
    "up_block_types": ["CrossAttnUpBlock2D"] * 3,
    "attention_head_dim": 2,
}
"""With attention at the finest level too, on the way up: pairs that share attention below it alone do not keep their layout."""
PREDICTION_TYPE = "v"
SIZE_MULTIPLE = 16
