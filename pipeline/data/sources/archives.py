"""Files in a zip or tar: their names as they were meant, their content without a copy on the disk."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

from pipeline.data.sources import members as common
from pipeline.data.sources.kinds import HEAD
from pipeline.data.sources.members import Members, refusing
from pipeline.data.sources.text import listed, shown
from storage.errors import DataError
from storage.required import required

_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075  # an extra field of Info-ZIP's: the name once more, in UTF-8
_MEMBER = b"PK\x03\x04"  # begins a member; a program before the first, as in archives that unpack themselves, does not
ASSUMED = "cp437"  # of names in a zip that say nothing: APPNOTE.TXT, appendix D


def open_zip(path: Path, encoding: str | None) -> Members:
    """The members of a zip. A name is UTF-8 where its flag or extra field says so, else of `encoding` or cp437."""

    def read(chosen: dict[int, list[str]]) -> Iterator[tuple[str, bytes]]:
        with refusing(path), zipfile.ZipFile(path, metadata_encoding=encoding) as archive:
            for place, info in enumerate(archive.infolist()):
                if place in chosen:
                    content = archive.read(info)
                    for name in chosen[place]:
                        yield name, content

    members, assumed = Members(path.name, read), []
    with zipfile.ZipFile(path, metadata_encoding=encoding) as archive, open(path, "rb") as file:
        first = min((info.header_offset for info in archive.infolist()), default=0)
        if first and file.read(4) == _MEMBER:
            raise zipfile.BadZipFile("more is before its first member, as where two are joined")
        for place, info in enumerate(archive.infolist()):
            name, certain = _zip_name(info, encoding)
            link = stat.S_ISLNK(info.external_attr >> 16)
            # In a name of unknown encoding a byte 0x5C is often the second half of a letter, no separator.
            name = _checked(path, name, info.file_size, "link" if link else None, certain or encoding is not None)
            if info.is_dir():
                members.folders.append(name)
                continue
            if not certain:
                assumed.append(name)
            members.add(name, place, partial(_open_head, archive, info))
    if assumed:
        stated = f"data.names_encoding, {encoding}" if encoding else f"{ASSUMED}, unless data.names_encoding is set"
        members.notes.append(f"{len(assumed)} names in {path.name} are read as {stated}: {listed(assumed)}")
    return members


def _zip_name(info: zipfile.ZipInfo, encoding: str | None) -> tuple[str, bool]:
    """The member's name, and whether its encoding is certain."""
    if info.flag_bits & _UTF8_FLAG or info.orig_filename.isascii():
        return info.filename, True
    extra = info.extra
    while len(extra) >= 4:
        kind, size = (int.from_bytes(extra[place : place + 2], "little") for place in (0, 2))
        crc = int.from_bytes(extra[5:9], "little")
        if kind == _UNICODE_PATH and crc == zlib.crc32(info.orig_filename.encode(encoding or ASSUMED)):
            return extra[9 : 4 + size].decode("utf-8"), True
        extra = extra[4 + size :]
    return info.filename, False


def open_tar(path: Path, encoding: str | None) -> Members:
    """The members of a tar, hard links as copies. Names are of `encoding` or UTF-8 where no header says UTF-8."""

    def read(chosen: dict[int, list[str]]) -> Iterator[tuple[str, bytes]]:
        with refusing(path), tarfile.open(path, encoding=encoding or "utf-8") as archive:
            for info in archive:
                if info.offset in chosen:
                    content = required(archive.extractfile(info), info.name).read()
                    for name in chosen[info.offset]:
                        yield name, content

    members = Members(path.name, read)
    files: dict[str, tuple[int, bytes]] = {}  # offset and first bytes of every file so far, hidden ones too
    with tarfile.open(path, encoding=encoding or "utf-8") as archive:
        for info in archive:
            kind = None if info.isreg() or info.isdir() or info.islnk() else "link or device"
            name = _checked(path, _slashed(info.name), info.size, kind, backslash=False)
            if info.isdir():
                members.folders.append(name)
                continue
            if info.islnk():
                target = "/".join(_parts(_slashed(info.linkname)))
                if target not in files:
                    value = f"{shown(name)}, a link to {shown(info.linkname)}"
                    rule = f"Links in {path.name} must lead to files stored before them"
                    raise DataError(rule, value, "Pack the archive again.")
                files[name] = files[target]
            else:
                files[name] = info.offset, _head(required(archive.extractfile(info), info.name))
            offset, head = files[name]
            members.add(name, offset, partial(bytes, head))
        # tarfile takes the end of a plain file, even inside a header, for the end of the archive; and it leaves unread
        # what follows that: the last bytes of a compressed one, where the checksum is, and an archive joined to it.
        if isinstance(archive.fileobj, io.BufferedReader):
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("it ends without the mark that ends a tar")
        while rest := archive.fileobj.read(1 << 20):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("more follows the mark that ends a tar, as where two are joined")
    return members


def _slashed(name: str) -> str:
    """The name of a tar's member with "/" between folders. Next to a "/" a "\\" is a letter, as in a class AC\\DC."""
    return name if "/" in name else name.replace("\\", "/")


def _open_head(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    return _head(archive.open(info))


def _head(file: IO[bytes]) -> bytes:
    with file:
        return file.read(HEAD)


def _checked(path: Path, name: str, size: int, kind: str | None, backslash: bool = True) -> str:
    """The member's name with "/" between its parts. Raises DataError if it is not a file inside the archive."""
    name = name.replace("\\", "/") if backslash else name
    parts = _parts(name)
    if kind:
        value = f"{shown(name)}, a {kind}"
    elif name.startswith("/") or ".." in parts or (parts and parts[0].endswith(":")):
        value = shown(name)
    elif size > common.MAX_BYTES:
        value = f"{shown(name)}, {size} bytes"
    else:
        return "/".join(parts)
    rule = f"Members of {path.name} must be files of at most {common.MAX_BYTES >> 20} MiB, inside of it"
    raise DataError(rule, value, "Nothing was read. Do not trust this archive; pack the images again.")


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]
