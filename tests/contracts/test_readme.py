"""What the README shows is made by the program and can be read without seeing it."""

from __future__ import annotations

import re

from tests.browser import screenshots
from tests.browser.views import VIEWS

PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")
MOST_BYTES = 150_000


def test_pictures_are_those_of_make_screenshots_and_have_words() -> None:
    found = PICTURE.findall((screenshots.ROOT / "README.md").read_text(encoding="utf-8"))
    paths = {screenshots.ROOT / path for _, path in found}
    assert paths == {screenshots.README_FOLDER / f"{name}.png" for name in screenshots.README}
    assert paths == set(screenshots.README_FOLDER.iterdir())
    assert all(path.stat().st_size < MOST_BYTES for path in paths)
    assert all(len(words.split()) > 5 for words, _ in found)


def test_pictures_are_of_views() -> None:
    taken = {f"{view.name}-{theme}" for view in VIEWS for theme in ("light", "dark")}
    assert set(screenshots.README) <= taken
