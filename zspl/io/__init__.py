"""Files in and out: atomic, checked, and one clear line when something is wrong."""
