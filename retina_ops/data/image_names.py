"""From the image names in annotation files to files."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..errors import DataError
from ..images import is_image_name


class ImageFinder:
    """Finds the files of images that annotations name, in a folder and the folders in it.

    Names are relative to the folder, with slashes or backslashes. Of an absolute name and of a URL, and of a relative
    one for which there is no file, the last part is looked for: in the folder, then in the folders in it.

    Args:
        folder: the folder of the images.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def find(self, name: str) -> Path | None:
        """The file of an image; None where there is none.

        Raises:
            DataError: several folders have a file of this name, and the annotation does not say which is meant.
        """
        plain = name.replace("\\", "/")
        if "://" in plain:
            plain = unquote(urlsplit(plain).path)
        is_inside = not plain.startswith("/") and ".." not in plain.split("/") and plain[1:2] != ":"
        if is_inside and (self.folder / plain).is_file():
            return self.folder / plain
        bare = plain.rpartition("/")[2]
        if (self.folder / bare).is_file():
            return self.folder / bare
        found = self._by_name.get(bare, [])
        if len(found) > 1:
            raise DataError(self.folder, f"has {len(found)} images named {bare}, such as {found[0]} and {found[1]}")
        return self.folder / found[0] if found else None

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """The images in all folders below, by the last part of their names; hidden files and folders are left out."""
        found: dict[str, list[str]] = {}
        for base, folders, files in os.walk(self.folder):
            folders[:] = sorted(entry for entry in folders if not entry.startswith("."))
            for file in sorted(files):
                if is_image_name(file):
                    found.setdefault(file, []).append(os.path.relpath(os.path.join(base, file), self.folder))
        return found
