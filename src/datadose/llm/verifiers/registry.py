"""Verifiers by name, and what is known of each."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import operator
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

from datadose.errors import InputError, close_match, reject, require_extra
from datadose.llm.verifiers.builtin import exact, mathematics, number, reasoning_gym_score

Verifier: TypeAlias = Callable[[str, Mapping[str, Any]], float]
"""Called with a completion and its row; 1 passes, and anything in [0, 1] may be returned."""

VERIFIERS: dict[str, Verifier] = {
    "exact": exact,
    "number": number,
    "math": mathematics,
    "reasoning-gym": reasoning_gym_score,
}
"""Built-in verifiers by name."""

_OLD_NAMES = {"last-number": "number"}
_LIBRARIES = {"math": ("math_verify", "math-verify"), "reasoning-gym": ("reasoning_gym", "reasoning-gym")}
"""Module and distribution that a built-in verifier needs."""
_COMPARING = (exact, number, mathematics)
_PACKAGE = Path(__file__).parent
_loaded: dict[int, tuple[Verifier, str]] = {}
"""Verifiers that were loaded by an address, by identity: a callable object may have no hash and no name."""


def judges_labels(verifier: Verifier, *, answered: bool) -> bool:
    """Whether ``verifier`` can distinguish a wrong completion of a row from a right one.

    Comparing with the answer cannot, where that is the completion itself or was taken from it: a row is
    ``answered`` if its answer comes from elsewhere.
    """
    return verifier not in _COMPARING or answered


def is_fixed(verifier: Verifier) -> bool:
    """Whether the digest of ``verifier`` decides its verdicts: it calls nothing outside this package.

    Such a verifier also ends by itself: it runs in this process, without a time limit.
    """
    return verifier in (exact, number)


def load_verifier(name: str | None, purpose: str = "") -> Verifier:
    """The verifier of that name, or the function ``module:function``; the working directory is searched too.

    What the module prints while it is imported goes to stderr. ``last-number`` is the old name of ``number``
    and warns.

    Raises InputError: no name (``purpose`` is what it is needed for), no such name, module or function, a
    module that cannot be imported, no callable.
    """
    known = f"{', '.join(VERIFIERS)} or module:function"
    if name is None:
        reject("verifier", "none", f"a verifier {purpose}: {known}")
    if name in _OLD_NAMES:
        new = _OLD_NAMES[name]
        message = f"the verifier {name} is now called {new}, and takes the last final form that is one number"
        warnings.warn(message, FutureWarning, stacklevel=2)
        name = new
    if name in _LIBRARIES:
        require_extra("llm", _LIBRARIES[name][0])
    if name in VERIFIERS:
        return VERIFIERS[name]
    module_name, colon, function_name = name.partition(":")
    if not (module_name and colon and function_name):
        reject("verifier", name, known, hint=close_match(name, VERIFIERS))
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        # Whatever its module prints, stdout is for results.
        with contextlib.redirect_stdout(sys.stderr):
            module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        allowed = f"a module that can be imported ({type(error).__name__}: {error})"
        raise InputError("verifier", name, allowed) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        reject("verifier", name, f"a function of the module {module_name}")
    _loaded[id(function)] = cast("Verifier", function), name
    return cast("Verifier", function)


def address(verifier: Verifier) -> str | None:
    """``module:name`` from which another process can import ``verifier``, None if there is no such address.

    A lambda, a function inside another one and what the main program defines have none.
    """
    if (known := _loaded.get(id(verifier))) is not None:
        return known[1]
    module, name = getattr(verifier, "__module__", None), getattr(verifier, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return None
    try:
        found = operator.attrgetter(name)(sys.modules[module])
    except (AttributeError, KeyError):
        return None
    return f"{module}:{name}" if found is verifier else None


def verifier_digest(verifier: Verifier) -> str:
    """sha256 of the source of the verifier's module; of its name where there is no source.

    A built-in verifier's is that of this package, with the version of the library that it uses.
    """
    for name, known in VERIFIERS.items():
        if verifier is known:
            files = sorted(_PACKAGE.glob("*.py"))
            library = _LIBRARIES.get(name)
            version = importlib.metadata.version(library[1]) if library else ""
            return hashlib.sha256(
                b"".join(file.read_bytes() for file in files) + version.encode()
            ).hexdigest()
    try:
        source = inspect.getsource(sys.modules[verifier.__module__])
    except (OSError, TypeError, KeyError):
        source = repr(getattr(verifier, "__qualname__", type(verifier)))
    return hashlib.sha256(source.encode()).hexdigest()
