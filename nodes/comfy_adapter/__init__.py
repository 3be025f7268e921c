"""Everything that touches ComfyUI. Only the files of this folder import comfy.*, folder_paths or latent_preview.

They convert and call; formulas live in ip2p_core.
"""
