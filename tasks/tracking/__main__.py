"""The sender process: `python -m tasks.tracking folder home linger`, started by a stage."""

import sys

from tasks.tracking.sender import serve

if __name__ == "__main__":
    serve(*sys.argv[1:])
