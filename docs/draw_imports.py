"""Draw which room of the package imports which, from the code: docs/images/imports.svg."""

from __future__ import annotations

from pathlib import Path

import grimp
from matplotlib import pyplot

PACKAGE = "pytorch_forecasting_mlstm"
PICTURE = Path(__file__).parent / "images" / "imports.svg"
#: Rooms by level, from the top; imports run downwards.
LEVELS = (
    ("cli",),
    ("forecaster",),
    ("models.mlstm_time",),
    ("models.base",),
    ("models.base.checks",),
    ("models.base.forecast",),
    ("models.base.checkpoint", "models.base.losses"),
    ("layers", "data", "resume"),
    ("layers.ops",),
    ("layers.ops.chunkwise", "layers.ops.cpp"),
)
_INNER = "layers._recurrent._mlstm"


def room_of(module: str) -> str | None:
    """Return the room of a module; None for single modules beside the rooms."""
    name = module.removeprefix(f"{PACKAGE}.").replace(_INNER, "layers").replace("_resume", "resume")
    if name == "models":  # which is the public front of the model's room
        return "models.mlstm_time"
    rooms = [room for level in LEVELS for room in level]
    found = [room for room in rooms if name == room or name.startswith(f"{room}.")]
    return max(found, key=len, default=None)


def room_imports() -> list[tuple[str, str]]:
    """List which room imports which, except a room and the one that it is in."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    pairs = {
        (room_of(importer), room_of(imported))
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
    }
    level = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
    return sorted((a, b) for a, b in pairs if a and b and level[a] < level[b])


def describe(imports: list[tuple[str, str]]) -> str:
    """Write imports as text, which the picture carries: a test compares it with the code."""
    return ", ".join(f"{importer} to {imported}" for importer, imported in imports)


def draw(path: Path) -> None:
    """Draw the rooms as boxes, and their imports as arrows."""
    place = {
        room: ((column + 1) / (len(rooms) + 1), -row)
        for row, rooms in enumerate(LEVELS)
        for column, room in enumerate(rooms)
    }
    figure, axes = pyplot.subplots(figsize=(9, 7.5))
    for importer, imported in room_imports():
        far = place[importer][1] - place[imported][1] > 1
        axes.annotate(
            "",
            xy=place[imported],
            xytext=place[importer],
            arrowprops={
                "arrowstyle": "->",
                "color": "#999999" if far else "#333333",
                "shrinkA": 12,
                "shrinkB": 12,
                "connectionstyle": "arc3,rad=0.3" if far else "arc3",
            },
        )
    for room, (x, y) in place.items():
        box = {"boxstyle": "round", "facecolor": "#eef4fb", "edgecolor": "#0072B2"}
        axes.text(x, y, room, ha="center", va="center", family="monospace", bbox=box)
    axes.set(xlim=(0, 1), ylim=(0.5 - len(LEVELS), 0.5))
    axes.axis("off")
    with pyplot.rc_context({"svg.hashsalt": "imports", "svg.fonttype": "none"}):
        metadata = {"Date": None, "Description": describe(room_imports())}
        figure.savefig(path, metadata=metadata, bbox_inches="tight")
    pyplot.close(figure)


if __name__ == "__main__":
    draw(PICTURE)
