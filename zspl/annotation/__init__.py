"""Pseudo labels for any folder of photos: found, labeled, audited and exported."""
