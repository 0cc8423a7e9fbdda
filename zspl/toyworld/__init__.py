"""A rendered world of textured objects, and the tiny SAM and CLIP that were trained on it."""
