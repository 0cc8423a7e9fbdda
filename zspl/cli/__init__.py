"""The command line: one file per command, imported when it is called.

Exit codes: 0 done, 1 done but some inputs were skipped, 2 the user can fix it, 130 stopped.
"""

import importlib
import sys
from collections.abc import Sequence

from zspl.cli._parsers import parser
from zspl.errors import ZsplError

USER_ERROR = 2
STOPPED = 130

_EXTRAS = {
    "segment_anything": "sam",
    "pycocotools": "sam",
    "skimage": "sam",
    "open_clip": "clip",
    "timm": "models",
    "segmentation_models_pytorch": "models",
    "pandas": "tables",
    "pyarrow": "tables",
    "matplotlib": "tables",
    "tabulate": "tables",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a problem is one line on stderr."""
    arguments = parser().parse_args(argv)
    try:
        return int(importlib.import_module(f"zspl.cli.{arguments.command}").run(arguments))
    except ZsplError as error:
        return _fail(" ".join(str(error).split()))
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        return _fail(f"needs the package {error.name}; pip install 'zspl[{_EXTRAS[error.name]}]'")
    except OSError as error:
        return _fail(f"{error.filename or 'a file'}: {error.strerror or error}")
    except KeyboardInterrupt:
        print("zspl: stopped; finished work stays, the same command continues", file=sys.stderr)
        return STOPPED


def _fail(message: str) -> int:
    print(f"zspl: {message}", file=sys.stderr)
    return USER_ERROR
