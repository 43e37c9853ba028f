"""Draw the imports between the rooms of the package, from the code, as docs/images/imports.svg."""

from __future__ import annotations

from pathlib import Path

import grimp
from matplotlib import pyplot

PACKAGE = "pytorch_forecasting_mlstm"
DIAGRAM = Path(__file__).parent / "images" / "imports.svg"
#: Rooms by level, from the top; imports run downwards.
LEVELS = (
    ("cli", "sktime"),
    ("forecaster",),
    ("models.mlstm_time",),
    ("models.base",),
    ("models.base.checks",),
    ("models.base.forecast",),
    ("models.base.checkpoint", "models.base.losses"),
    ("layers", "data", "resume"),
    ("layers.ops", "_safe_files"),
    ("layers.ops.triton",),
    ("layers.ops.chunkwise", "layers.ops.cpp"),
)
_INNER = "layers._recurrent._mlstm"


def room_of(module: str) -> str | None:
    """Return the room of a module, or None if the module is in no room."""
    name = module.removeprefix(f"{PACKAGE}.").replace(_INNER, "layers").replace("_resume", "resume")
    if name == "models":  # the public module of this room
        return "models.mlstm_time"
    rooms = [room for level in LEVELS for room in level]
    matches = [room for room in rooms if name == room or name.startswith(f"{room}.")]
    return max(matches, key=len, default=None)


def room_imports() -> list[tuple[str, str]]:
    """List the pairs of rooms of which the first imports the second, a level below or more."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    pairs = {
        (room_of(importer), room_of(imported))
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
    }
    level = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
    return sorted((a, b) for a, b in pairs if a and b and level[a] < level[b])


def describe(imports: list[tuple[str, str]]) -> str:
    """Write imports as text, which the SVG contains so that a test can compare it with the code."""
    return ", ".join(f"{importer} to {imported}" for importer, imported in imports)


def draw(path: Path) -> None:
    """Draw the rooms as boxes and their imports as arrows."""
    place = {
        room: ((column + 1) / (len(rooms) + 1), -row)
        for row, rooms in enumerate(LEVELS)
        for column, room in enumerate(rooms)
    }
    figure, axes = pyplot.subplots(figsize=(8.2, 7.2), dpi=72)
    axes.set(xlim=(0, 1), ylim=(0.5 - len(LEVELS), 0.5))
    axes.axis("off")
    figure.subplots_adjust(0, 0, 1, 1)
    box = {"boxstyle": "round", "facecolor": "#eef4fb", "edgecolor": "#0072B2"}
    labels = {
        room: axes.text(
            x, y, room, ha="center", va="center", family="monospace", bbox=box, zorder=5
        )
        for room, (x, y) in place.items()
    }
    figure.canvas.draw()  # sets the sizes of the boxes, at which the arrows end
    for importer, imported in room_imports():
        far = place[importer][1] - place[imported][1] > 1
        axes.annotate(
            "",
            xy=place[imported],
            xytext=place[importer],
            arrowprops={
                "arrowstyle": "->",
                "color": "#999999" if far else "#333333",
                "patchA": labels[importer].get_bbox_patch(),
                "patchB": labels[imported].get_bbox_patch(),
                "connectionstyle": "arc3,rad=0.3" if far else "arc3",
            },
        )
    with pyplot.rc_context({"svg.hashsalt": "imports", "svg.fonttype": "none"}):
        metadata = {"Date": None, "Description": describe(room_imports())}
        figure.savefig(path, metadata=metadata)
    pyplot.close(figure)


if __name__ == "__main__":
    draw(DIAGRAM)
