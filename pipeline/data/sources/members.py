"""The files in a folder, zip or tar as names and bytes. Archives are never unpacked to the disk."""

from __future__ import annotations

import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from storage.errors import DataError

MAX_BYTES = 1 << 28  # of one member, unpacked: no image or batch of ours is near it, a bomb is beyond


def names(path: Path) -> list[str]:
    """Names of all regular files, sorted, as relative paths with "/"; hidden ones and __MACOSX are left out.

    Raises DataError for what is no folder, zip or tar, for a damaged archive, and for one with a member that is a link
    or would lie outside of it.
    """
    if path.is_dir():
        return sorted(name for name, _ in walk(path))
    found = sorted(name for name, _ in _archive(path, None))
    for name, following in pairwise(found):
        if name == following:
            raise DataError(f"{path.name} has each file once", name, "Pack the archive anew.")
    return found


def read(path: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the `wanted` files of `names(path)`, in the order in which they are stored."""
    if not path.is_dir():
        yield from _archive(path, wanted)
        return
    for name in sorted(wanted):
        with _refusing(path / name):
            content = (path / name).read_bytes()
        yield name, content


def walk(folder: Path, prefix: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Relative name and stat of each file that is not hidden. Links to files are followed, links to folders refused."""
    with _refusing(folder), os.scandir(folder / prefix) as entries:
        for entry in entries:
            name = prefix + entry.name
            if _hidden(entry.name):
                continue
            if entry.is_dir():
                if entry.is_symlink():
                    raise DataError("a folder of images has no links to folders", str(folder / name), "Copy it there.")
                yield from walk(folder, name + "/")
            elif stat.S_ISREG((found := entry.stat()).st_mode):
                yield name, found
            else:
                raise DataError("a folder of images has files and folders only", str(folder / name), "Remove it.")


def _archive(path: Path, wanted: set[str] | None) -> Iterator[tuple[str, bytes]]:
    """Members of a zip or tar; their bytes only if `wanted`, and only those; without it all of them, and no bytes."""
    if not path.is_file():
        raise DataError("data.path is a folder or file", str(path), "Check the path.")
    with _refusing(path):
        if zipfile.is_zipfile(path):
            yield from _zip(path, wanted)
        elif tarfile.is_tarfile(path):
            yield from _tar(path, wanted)
        else:
            raise DataError("an archive is a zip or tar that is whole", str(path), "Fetch or pack it again.")


def _zip(path: Path, wanted: set[str] | None) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            link = stat.S_ISLNK(info.external_attr >> 16)
            name = _checked(path, info.filename, info.file_size, "link" if link else None)
            if info.is_dir() or name is None:
                continue
            if wanted is None:
                yield name, b""
            elif name in wanted:
                yield name, archive.read(info)


def _tar(path: Path, wanted: set[str] | None) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        for info in archive:
            name = _checked(path, info.name, info.size, None if info.isreg() or info.isdir() else "link or device")
            if info.isdir() or name is None:
                continue
            if wanted is None:
                yield name, b""
            elif name in wanted:
                yield name, archive.extractfile(info).read()
        # tarfile takes the end of a plain file, even inside a header, for the end of the archive; and it leaves unread
        # the last bytes of a compressed one, where the checksum is.
        if isinstance(archive.fileobj, io.BufferedReader):
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("it ends without the mark that ends a tar")
        while archive.fileobj.read(1 << 20):
            pass


def _checked(path: Path, name: str, size: int, kind: str | None) -> str | None:
    """The member's name made plain; None if hidden. Raises DataError if it is not a file inside the archive."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if kind:
        found = f"{name}, a {kind}"
    elif name.startswith(("/", "\\")) or ".." in parts or (parts and parts[0].endswith(":")):
        found = name
    elif size > MAX_BYTES:
        found = f"{name}, {size} bytes"
    else:
        return None if any(_hidden(part) for part in parts) else "/".join(parts)
    rule = f"members of {path.name} are files of at most {MAX_BYTES >> 20} MiB, inside of it"
    raise DataError(rule, found, "Nothing was read. Do not trust this archive; pack the images anew.")


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """What the standard library raises on a damaged or unreadable file, as an DataError about `path`."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise DataError("the data can be read", f"{path}: {error}", "Fetch or pack it again.") from error
    except (RuntimeError, NotImplementedError) as error:  # zipfile: encrypted, or of unknown compression
        raise DataError("an archive is neither encrypted nor exotic", f"{path}: {error}", "Pack it plainly.") from error
