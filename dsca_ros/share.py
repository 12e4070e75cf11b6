"""Where the files that come with the package are: the checkout, or the share folder of an installation."""

from __future__ import annotations

from pathlib import Path


def find(relative: str) -> Path | None:
    """A file or folder that ships beside the code, such as ``models`` or ``config/dsca.yaml``."""
    package = Path(__file__).resolve().parent
    # <prefix>/lib/pythonX.Y/site-packages/dsca_ros, of colcon or of a virtual environment.
    folders = [package.parent, *(parent / "share" / "dsca_ros" for parent in package.parents)]
    return next((folder / relative for folder in folders if (folder / relative).exists()), None)
