"""Opens the layers of a case in 3D Slicer; run by Slicer's own Python with one argument, the layers as JSON (see `slicer.py`)."""

import json
import sys
from typing import Any


def open_layers(slicer: Any, layers: list[dict[str, Any]]) -> None:
    """Load every layer by name with its colours and range, and show the image with the map on top of it."""
    shown: dict[str, Any] = {}
    for layer in layers:
        if layer["kind"] == "labels":
            node = slicer.util.loadSegmentation(layer["path"], {"name": layer["name"]})
            node.GetDisplayNode().SetOpacity2DFill(0.0)
            continue
        node = slicer.util.loadVolume(layer["path"], {"name": layer["name"]})
        display = node.GetDisplayNode()
        if layer["kind"] == "map":
            colours = slicer.mrmlScene.GetFirstNodeByName(layer["colours"])
            if colours is not None:  # a version of Slicer without this scale shows grey
                display.SetAndObserveColorNodeID(colours.GetID())
            display.SetAutoWindowLevel(False)
            display.SetWindowLevelMinMax(0.0, layer["high"])
        if layer.get("on"):
            shown["background" if layer["kind"] == "image" else "foreground"] = node
    slicer.util.setSliceViewerLayers(**shown, foregroundOpacity=0.5 if "foreground" in shown else None, fit=True)


if __name__ == "__main__":
    import slicer  # type: ignore[import-not-found]  # there in Slicer alone

    open_layers(slicer, json.loads(sys.argv[1]))
