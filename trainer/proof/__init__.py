"""The paper's whole chain in the rendered world, where every edit has an exact target."""
