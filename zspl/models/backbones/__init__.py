"""Encoders: one file each, with `Settings` and `build(settings) -> Encoder`."""
