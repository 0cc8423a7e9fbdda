"""One stage with tracking around it, and DVC's graph as plain data. Nothing here computes."""
