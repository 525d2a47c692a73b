"""The extension is bound to the torch minor version that it was built with."""

from importlib.metadata import PackageNotFoundError, version

from ._built_with import TORCH_VERSION


def check() -> None:
    """Raises ImportError where the installed torch is not of the minor version built with."""
    try:
        installed = version("torch")
    except PackageNotFoundError:
        installed = "none"
    if _minor(installed) != _minor(TORCH_VERSION):
        raise ImportError(
            f"`atheria_core` was built with torch {TORCH_VERSION} and finds torch {installed}; "
            f"install that torch (pip install 'torch=={_minor(TORCH_VERSION)}.*'), or build Atheria anew "
            "for yours, in its source folder: pip install --no-build-isolation --force-reinstall --no-deps ."
        )


def _minor(full: str) -> str:
    return ".".join(full.split(".")[:2])
