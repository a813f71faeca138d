"""Read pickles of NumPy arrays and plain containers without running code."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from storage.errors import DataError

_multiarray = (np._core if hasattr(np, "_core") else np.core).multiarray


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"bytes written as text of encoding {encoding}")
    return text.encode(encoding)


# A pickle calls the functions that it names. These build arrays, and bytes where Python 3 wrote protocol 2.
_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _multiarray._reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _multiarray._reconstruct,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise DataError(
                "A batch file must hold nothing but arrays, numbers, text and containers of them",
                f"{module}.{name}",
                "The file would run code: do not trust it; fetch the official archive.",
            ) from None


def unpickle(data: bytes, name: str) -> Any:
    """The object pickled in `data`, Python 2 strings as bytes. Raises DataError for a damaged pickle, or one that calls
    anything else than `_ALLOWED`."""
    try:
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DataError(
            "A batch file must be a Python pickle", f"{name}: {error}", "Fetch the archive again."
        ) from error
