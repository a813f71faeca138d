"""The files in a folder, zip or tar as names and bytes. Archives are never unpacked to the disk."""

from __future__ import annotations

import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.data.sources.kinds import HEAD, is_image
from pipeline.data.sources.text import shown
from storage.errors import DataError
from storage.store import STORE_FOLDERS, is_store

MAX_BYTES = 1 << 28  # of one member, unpacked: no image or batch is near it, a bomb is beyond
HIDDEN, STORE = "hidden", "flowctl store"  # kinds of files that are never read
_OF_SYSTEMS = ("__MACOSX", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "#recycle", "lost+found")


@dataclass
class Members:
    """The files of a source.

    `places` maps each name, relative and with "/", to what `read_places` takes; hidden files and __MACOSX are not among
    them. `images` are the names that are images by their extension, or else by their first bytes. `folders` are those
    that an archive lists, empty ones too.
    """

    source: str
    read_places: Callable[[dict[Any, list[str]]], Iterator[tuple[str, bytes]]]
    places: dict[str, Any] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    ignored: dict[str, list[str]] = field(default_factory=dict)  # names by kind: hidden files and stores
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, place: Any, head: Callable[[], bytes]) -> None:
        """Take in a file; `head` gives its first bytes. Raises DataError for a second file of the same name."""
        if is_hidden(name):
            self.ignore(HIDDEN, name)
            return
        if name in self.places:
            raise DataError(f"{self.source} must hold each file once", shown(name), "Pack the archive again.")
        self.places[name] = place
        if is_image(name, head):
            self.images.append(name)

    def ignore(self, kind: str, name: str) -> None:
        self.ignored.setdefault(kind, []).append(name)

    def leave_stores_out(self) -> None:
        """Take out the files of every store below, as `walk` does for a folder."""
        lowest = {*self.folders, *(name.rpartition("/")[0] for name in self.places)}
        folders = {str(folder) for name in lowest for folder in (PurePosixPath(name), *PurePosixPath(name).parents)}
        above = {name.rpartition("/")[0] for name in folders if name.rpartition("/")[2] == STORE_FOLDERS[0]}
        for store in sorted(above):
            if not folders.issuperset(f"{store}/{name}".lstrip("/") for name in STORE_FOLDERS):
                continue
            self.ignore(STORE, store or ".")
            inside = f"{store}/" if store else ""
            self.places = {name: place for name, place in self.places.items() if not name.startswith(inside)}
            self.images = [name for name in self.images if name in self.places]
            self.folders = [name for name in self.folders if not f"{name}/".startswith(inside)]

    def read(self, names: set[str]) -> Iterator[tuple[str, bytes]]:
        """Name and content of the files of these `names`, in the order in which they are stored."""
        chosen: dict[Any, list[str]] = {}
        for name in sorted(names):
            chosen.setdefault(self.places[name], []).append(name)
        return self.read_places(chosen)


def walk(folder: Path, prefix: str = "", skipped: Callable[[str, str], None] | None = None) -> Iterator[tuple]:
    """Relative name and stat of each file. Links to files are followed.

    Hidden files, hidden folders and stores are left out; kind and name of each hidden file and each store go to
    `skipped`, if given. Raises DataError for links to folders, links that lead nowhere, and devices.
    """
    with refusing(folder), os.scandir(folder / prefix) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = prefix + entry.name
            hidden = is_hidden(entry.name)
            if entry.is_dir() and not entry.is_symlink():
                if is_store(folder / name):
                    if skipped:
                        skipped(STORE, name)
                elif not hidden:
                    yield from walk(folder, name + "/", skipped)
                elif skipped:
                    for below, _, files in os.walk(folder / name):
                        for file in files:
                            skipped(HIDDEN, os.path.relpath(os.path.join(below, file), folder))
            elif hidden:
                if skipped:
                    skipped(HIDDEN, name)
            else:
                yield name, _stat_of_file(folder, name, entry)


def _stat_of_file(folder: Path, name: str, entry: os.DirEntry) -> os.stat_result:
    place = shown(str(folder / name))
    if entry.is_symlink() and not os.path.exists(entry.path):
        target = f"{place}, a link to {shown(os.readlink(entry.path))}"
        raise DataError("Links in a folder of images must lead to files that exist", target, "Remove or repair it.")
    if entry.is_dir():
        raise DataError("A folder of images must hold no links to folders", place, "Copy the folder there.")
    status = entry.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DataError("A folder of images must hold files and folders only", place, "Remove it.")
    return status


def refuse_stores(path: Path) -> None:
    """Raise DataError if `path` is a store or lies inside of one."""
    store = next((place for place in (path, *path.parents) if is_store(place)), None)
    if store:
        remedy = "Copy the images to a folder outside of it."
        raise DataError(f"data.path must lie outside of the store {shown(str(store))}", shown(str(path)), remedy)


def is_hidden(name: str) -> bool:
    """Whether a file is hidden, lies in a hidden folder, or is what an operating system adds to folders."""
    return any(part.startswith(".") or part in _OF_SYSTEMS for part in name.split("/"))


def open_folder(path: Path) -> Members:
    def head(name: str) -> bytes:
        with refusing(path / name), open(path / name, "rb") as file:
            return file.read(HEAD)

    def read(chosen: dict[str, list[str]]) -> Iterator[tuple[str, bytes]]:
        for name in chosen:
            with refusing(path / name):
                content = (path / name).read_bytes()
            yield name, content

    members = Members(shown(path.absolute().name), read)
    for name, _ in walk(path, skipped=members.ignore):
        members.add(name, name, partial(head, name))
    return members


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn the standard library's errors on a damaged or unreadable file into a DataError about `path`."""
    place = shown(str(path))
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise DataError("The data must be readable", f"{place}: {error}", "Fetch or pack it again.") from error
    except UnicodeDecodeError as error:
        rule = f"Names in {place} must be of the encoding {error.encoding}"
        raise DataError(rule, error.object, "Set data.names_encoding to the encoding that wrote them.") from error
    except RecursionError as error:
        raise DataError("Folders must lie at most some hundreds deep in each other", place, "Move them up.") from error
    except (RuntimeError, NotImplementedError) as error:  # zipfile: encrypted, or of unknown compression
        rule = "An archive must not be encrypted, and must be compressed by a common method"
        raise DataError(rule, f"{place}: {error}", "Pack it without a password, by deflate.") from error
