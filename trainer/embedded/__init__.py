"""Training of the embedded editor: a tiny InstructPix2Pix model on rendered scenes and global photo edits."""
