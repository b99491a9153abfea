"""Kinds of regions, one a file: how an image is parted.

The name of a file is the name of its kind in settings; the settings read it, and the first line of the docstring, without
importing the file (`registry.kinds_in`; `PLACE` orders the lists). A file holds `partition(settings, image, labels)`: the region
maps of one image of any spatial rank (several where a pixel lies in several regions), deterministic.
"""
