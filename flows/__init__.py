"""Prefect flows: DVC's graph run as tasks. They compute nothing and cache nothing themselves."""
