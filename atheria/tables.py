"""Tables of cells of text, their first row the heads, as people read them."""

from collections.abc import Sequence


def as_text(table: Sequence[Sequence[str]], figures: bool = False) -> str:
    """A table in columns.

    Args:
        table: Rows of equal length.
        figures: Whether all columns but the first hold figures, which are set to the right.
    """
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    sides = ["<", *(">" if figures else "<" for _ in widths[1:])]
    return "\n".join(
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in table
    )


def as_markdown(table: Sequence[Sequence[str]]) -> str:
    """A table as Markdown."""
    title, *rows = table
    return "\n".join(f"| {' | '.join(row)} |" for row in [title, ["---"] * len(title), *rows])
