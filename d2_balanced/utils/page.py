"""Pages of HTML that need no other file; whatever is put into them is text, never markup."""

import base64
import os

from .atomic import atomic_write

__all__ = ["png_source", "write_page"]


def write_page(path, template, **values):
    """Render the Jinja template (a path), which may extend ``page.html`` of this folder, into the file ``path``."""
    import jinja2

    folders = [os.path.dirname(template), os.path.dirname(__file__)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    text = environment.get_template(os.path.basename(template)).render(**values)
    with atomic_write(path, "w") as file:
        file.write(text)


def png_source(path):
    """A PNG file as the ``src`` of an ``<img>``."""
    with open(path, "rb") as file:
        return "data:image/png;base64," + base64.b64encode(file.read()).decode("ascii")
