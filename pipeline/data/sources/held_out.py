"""A list of test images and their classes: ImageNet's validation images lie in one folder, with a text file."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Collection

import numpy as np

from pipeline.data.sources.arrange import TRAIN, Arrangement, arrange, is_one_of
from pipeline.data.sources.kinds import BY_EXTENSION, extension_of
from pipeline.data.sources.members import Members
from pipeline.data.sources.text import listed, normal, shown
from storage.errors import DataError, RecipeError


def arrange_with_list(members: Members, file: str, layout: str) -> Arrangement:
    """Test images and their classes from the text file `file`, training images from class folders.

    A line of the list has the name of an image, with or without its folders and its extension, and its class; tabs,
    commas or blanks separate them, and further columns count for nothing. If one folder is for training, other images
    outside of the list are left out; else all of them train.

    Raises:
        DataError: a line without an image, or with several of its name; a class without a training folder.
        RecipeError: there is no such file.
    """
    source, notes = members.source, list[str]()
    lines = _lines(members, file)
    places = _Places(members.images)
    heading = lines.pop(0) if lines and _is_heading(lines[0], places) else None
    chosen: dict[str, str] = {}
    for name, text in lines:
        of_name = places.of(name)
        if len(of_name) != 1:
            raise _no_image(source, file, f"{shown(name)}: {listed(of_name) or 'no image'}")
        if chosen.setdefault(of_name[0], text) != text:
            value = f"{shown(name)}: {listed((chosen[of_name[0]], text))}"
            raise DataError(f"Each image in {file} must have one class", value, "Correct the list.")
    rest = [name for name in members.images if name not in chosen]
    training = _training(members.images, rest)
    folders = arrange(source, training, layout)
    if folders.classes is None or folders.labels is None or folders.tests is not None:
        rule = f"Training images of {source} must be in class folders where data.test_list is set"
        raise DataError(rule, listed(training), "Sort them into folders, or leave data.test_list out.")
    number = {name: label for label, name in enumerate(folders.classes)}

    def class_of(text: str) -> str:
        # A list may have more in the column of the class, as Kaggle's has boxes: then its first word is the class.
        return text if text in number else (text.split() or [""])[0]

    if heading:
        if class_of(heading[1]) in number:
            raise _no_image(source, file, f"{shown(heading[0])}: no image")
        notes.append(f"the first line of {file} is its heading: {shown(' '.join(heading))}")
    classes = {name: class_of(text) for name, text in chosen.items()}
    unknown = sorted({text for text in classes.values() if text not in number})
    if unknown:
        remedy = "Correct the list, or add images of these classes."
        raise DataError(f"Classes in {file} must be training folders of {source}", listed(unknown), remedy)
    labels = dict(zip(folders.names, folders.labels.tolist(), strict=True))
    of_folder = {name.rpartition("/")[0]: folders.classes[label] for name, label in labels.items()}
    for name, text in classes.items():
        if (other := of_folder.get(name.rpartition("/")[0], text)) != text:
            value = f"{shown(name)}: {listed((other, text))}"
            rule = f"Images that {file} has from a folder of training images must have its class"
            raise DataError(rule, value, "Correct the list, or move the image.")
    labels |= {name: number[text] for name, text in classes.items()}
    names = sorted(labels, key=lambda name: (normal(name), name))
    outside = sorted(set(rest) - set(training))
    return Arrangement(
        names,
        np.array([labels[name] for name in names], dtype=np.int64),
        folders.classes,
        np.array([name in chosen for name in names]),
        [*notes, *folders.notes],
        outside,
    )


def _is_heading(line: tuple[str, str], places: _Places) -> bool:
    """Whether the first line names no image, neither one of the source nor one that is missing there."""
    words = " ".join(line).split()
    return not places.of(line[0]) and not any(extension_of(word) in BY_EXTENSION for word in words)


def _no_image(source: str, file: str, value: str) -> DataError:
    remedy = "Correct the list, or write the folders of the image too."
    return DataError(f"Each line of {file} must name one image of {source}", value, remedy)


def require_list(file: str, names: Collection[str], source: str) -> None:
    """Raise RecipeError unless a file of this name is among those of the source."""
    if file not in names:
        texts = [name for name in names if name.endswith((".txt", ".csv", ".tsv"))]
        remedy = f"Text files of {source} are: {listed(texts) or 'none'}."
        raise RecipeError("data.test_list must name a text file of the source", file, remedy)


def _lines(members: Members, file: str) -> list[tuple[str, str]]:
    """Name and class of each line."""
    require_list(file, members.places, members.source)
    ((_, content),) = members.read({file})
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} must be text in UTF-8", str(error), "Save it in UTF-8.") from None
    lines = []
    for line in text.splitlines():
        separator = next((mark for mark in "\t," if mark in line), None)
        apart = _quoted(line, file) if separator == "," else line.split(separator, 2 if separator else 1)
        fields = [normal(field.strip()) for field in apart]
        if fields != [""] and fields:
            if len(fields) < 2:
                rule = f"Each line of {file} must have a name and a class"
                raise DataError(rule, shown(line), "Correct the list.")
            lines.append((fields[0], fields[1]))
    return lines


def _quoted(line: str, file: str) -> list[str]:
    """The fields between commas, which may be quoted."""
    try:
        (fields,) = csv.reader([line], skipinitialspace=True)
    except csv.Error as error:
        raise DataError(f"Each line of {file} must have a name and a class", str(error), "Correct the list.") from None
    return fields


class _Places:
    """Images by the end of their paths, with and without the extension."""

    def __init__(self, images: list[str]) -> None:
        self._by_file: dict[str, list[str]] = defaultdict(list)
        for name in images:
            plain = normal(name)
            for path in {plain, plain.rpartition(".")[0]}:
                self._by_file[path.rpartition("/")[2]].append(name)

    def of(self, name: str) -> list[str]:
        """Images whose path is `name` or ends with it."""
        ends = name.removeprefix("./")
        return [
            image
            for image in self._by_file.get(ends.rpartition("/")[2], ())
            if any(f"/{path}".endswith(f"/{ends}") for path in (normal(image), normal(image).rpartition(".")[0]))
        ]


def _training(images: list[str], rest: list[str]) -> list[str]:
    """Those in the one folder for training, else all of the rest."""
    paths = {name: normal(name).split("/") for name in images}
    depth = 0
    while all(len(path) > depth + 1 for path in paths.values()) and len({path[depth] for path in paths.values()}) == 1:
        depth += 1
    tops = {paths[name][depth] for name in rest if len(paths[name]) > depth + 1}
    folders = [top for top in tops if is_one_of(top, TRAIN)]
    if len(folders) != 1:
        return rest
    return [name for name in rest if len(paths[name]) > depth + 1 and paths[name][depth] == folders[0]]
