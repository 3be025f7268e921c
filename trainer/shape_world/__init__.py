"""A rendered world of flat shapes in which every edit has an exact target and mask."""
