"""Loops over pixels, compiled by numba, without Python's lock.

The machine code is kept beside this package, or else in the user's cache, by numba's own rules; where neither can be
written, each process compiles its own.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a loop that does with floats what NumPy does."""
    return _compiled(function)


def vectorised(function: Function) -> Function:
    """Compile a loop over floats of which none is NaN, where the sign of 0 is of no account; sums keep their order."""
    return _compiled(function, fastmath={"nnan", "nsz"})


def _compiled(function: Function, **options: Any) -> Function:
    try:
        return numba.njit(function, cache=True, nogil=True, error_model="numpy", **options)  # type: ignore[no-any-return]
    except RuntimeError:  # no place for the cache
        return numba.njit(function, nogil=True, error_model="numpy", **options)  # type: ignore[no-any-return]
