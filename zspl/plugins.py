"""A folder is a registry: the name in params.yaml is the file's name.

`load("zspl.methods", "unimatch")` imports `zspl/methods/unimatch.py`. There is no
decorator and no global table; files that start with an underscore are not plugins.
A plugin module has a `Settings` class and a `build` function.
"""

import importlib
import pkgutil
from types import ModuleType

from zspl.errors import UnknownPluginError


def names(package: str) -> tuple[str, ...]:
    """Return the plugins in `package`, sorted, without importing any of them."""
    paths = importlib.import_module(package).__path__
    return tuple(sorted(m.name for m in pkgutil.iter_modules(paths) if not m.name.startswith("_")))


def load(package: str, name: str) -> ModuleType:
    """Import one plugin.

    Raises:
        UnknownPluginError: if `package` has no file `name`.py.
    """
    known = names(package)
    # A name with a dot, a slash or an underscore in front is never among the known ones.
    if name not in known:
        raise UnknownPluginError(package, name, known)
    return importlib.import_module(f"{package}.{name}")
