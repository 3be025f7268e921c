"""`ip2p train`: an 8-channel U-Net fine-tuned on pairs (arXiv:2211.09800, section 3.2)."""
