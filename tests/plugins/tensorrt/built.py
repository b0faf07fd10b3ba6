"""Builds plans with the real library, in its own interpreter; prints what came of it.

``python -m tests.plugins.tensorrt.built FOLDER``: the folder holds models; the last
line is JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atomr_infer.errors import InferenceError
from atomr_infer_tensorrt.building import build_plan
from atomr_infer_tensorrt.graph import read_graph
from atomr_infer_tensorrt.library import import_library, open_plan
from atomr_infer_tensorrt.loading import find_model, recipe_of
from atomr_infer_tensorrt.options import Library, Options
from atomr_infer_tensorrt.recipe import Precision

if TYPE_CHECKING:
    from atomr_infer.runtimes.contract import Progress


PRECISIONS = {"encoder": tuple(Precision), "writer": (Precision.FP16,)}


def built(module: Any, source: Path, precision: Precision) -> dict[str, object]:
    """Build, and try to open; what an operator would be told is in ``error``."""
    seen: list[Progress] = []
    options = Options(source=str(source), precision=precision)
    place = find_model(str(source), None)
    try:
        graph = read_graph(place.file)
        recipe = recipe_of(options, graph, place.layout)
        plan = build_plan(module, graph.path, recipe, seen.append)
    except InferenceError as error:
        return {"error": str(error)}
    told = {"bytes": len(plan), "progress": seen[-1].phase}
    try:
        open_plan(module, plan, "m.plan")
    except InferenceError as error:
        return {**told, "opened": str(error)}
    return {**told, "opened": "on a GPU"}


def main() -> None:
    """Build each model of the folder."""
    module = import_library(Library.TENSORRT_RTX)
    folder = Path(sys.argv[1])
    found = {
        f"{source.name} {precision.value}": built(module, source, precision)
        for source in sorted(folder.iterdir())
        for precision in PRECISIONS.get(source.name, (Precision.MODEL,))
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
