"""The eight steps as one page that needs no server: ``lrc lesson --html FILE_OR_FOLDER``."""
