"""Open a folder, zip or tar by what it is."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

from pipeline.data.sources.archives import open_tar, open_zip
from pipeline.data.sources.members import Members, open_folder, refusing
from pipeline.data.sources.text import listed, shown
from storage.errors import DataError
from storage.text import decodable


def open_members(path: Path, encoding: str | None = None) -> Members:
    """The files of a folder, zip or tar.

    Args:
        encoding: of names in an archive that does not say: cp437 for a zip, UTF-8 for a tar unless given.

    Raises:
        DataError: no folder, zip or tar; a damaged archive; a store; a link that leads nowhere or to a folder; a member
            of an archive that is a link out of it, lies outside of it or is too large; an image whose name is no text.
    """
    if path.is_dir():
        members = open_folder(path)
    elif not path.is_file():
        raise DataError("data.path must be an existing folder or archive", shown(str(path)), "Check the path.")
    else:
        with refusing(path):
            if tarfile.is_tarfile(path):  # asked first: a tar may end with a zip, which is sought at the end of a file
                members = open_tar(path, encoding)
            elif zipfile.is_zipfile(path):
                members = open_zip(path, encoding)
            else:
                raise DataError("An archive must be a whole zip or tar", shown(str(path)), "Fetch or pack it again.")
    if path.is_file():
        members.leave_stores_out()
    undecodable = [name for name in members.images if not decodable(name)]
    if undecodable:
        remedy = "Rename them" + (" or set data.names_encoding." if path.is_file() else ", for example by convmv.")
        raise DataError("Names of images and of their folders must be valid UTF-8", listed(undecodable), remedy)
    return members
