"""What a measurement says: tables for people, the same values as JSON for programs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

Cell = str | float | int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under a title; the first column names them."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]

    def lines(self) -> list[str]:
        """Return the table as text, numbers to the right."""
        cells = [self.columns, *(tuple(_shown(cell) for cell in row) for row in self.rows)]
        widths = [max(len(row[at]) for row in cells) for at in range(len(self.columns))]
        return [
            self.title,
            *(
                "  "
                + "  ".join(
                    cell.ljust(width) if at == 0 else cell.rjust(width)
                    for at, (cell, width) in enumerate(zip(row, widths, strict=True))
                )
                for row in cells
            ),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One measurement: how it was made, what came out, and every sample it was made of."""

    name: str
    method: str
    tables: Sequence[Table]
    samples: Sequence[dict[str, Any]] = field(default=())

    def text(self) -> str:
        """Return the report for people."""
        tables = "\n\n".join("\n".join(table.lines()) for table in self.tables)
        return f"== {self.name} ==\n{self.method}\n\n{tables}\n"

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs."""
        return asdict(self)


def spread(values: Sequence[float], unit: str = "") -> tuple[Cell, ...]:
    """Return median, smallest and largest of `values` as cells."""
    if not values:
        return (None, None, None)
    return tuple(f"{one:.2f}{unit}" for one in (median(values), min(values), max(values)))


def _shown(cell: Cell) -> str:
    if cell is None:
        return "-"
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)
