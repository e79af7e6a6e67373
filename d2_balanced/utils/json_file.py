"""JSON files that a user names: read, or refused with the file's name."""

import json

from .errors import DataError

__all__ = ["read_json"]


def read_json(path):
    """The content of a JSON file. ``DataError``, naming it, if it cannot be read or is not JSON."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:  # of the decoding or of the parser
        raise DataError(f"{path} is not a JSON file: {error}") from error
