"""Reading pickles of NumPy arrays and plain containers without giving them the power to run anything."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from storage.errors import InputError

_multiarray = (np._core if hasattr(np, "_core") else np.core).multiarray


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"bytes written as text of encoding {encoding}")
    return text.encode(encoding)


# A pickle calls what it names. These build arrays, and bytes where Python 3 wrote protocol 2; nothing else is needed.
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
            raise InputError(
                "a batch file holds arrays, numbers, text and containers of them only",
                f"{module}.{name}",
                "It asks for code to be run: do not trust this file; fetch the official archive.",
            ) from None


def unpickle(data: bytes, name: str) -> Any:
    """The object pickled in `data`, Python 2 strings as bytes. Raises InputError, saying `name` or what it asks for."""
    try:
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise InputError("a batch file is a Python pickle", f"{name}: {error}", "Fetch the archive again.") from error
