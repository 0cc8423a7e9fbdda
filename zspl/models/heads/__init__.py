"""Decoders: one file each, with `Settings` and `build(settings) -> HeadFactory`."""
