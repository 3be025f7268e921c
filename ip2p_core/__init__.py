"""The method of InstructPix2Pix (arXiv:2211.09800) in torch: no host, no backend."""
