"""Wanted masks, one a file: what a mask is moved to as a whole.

The name of a file is the name of its mask in settings; the settings read it, and the first line of the docstring, without
importing the file (`registry.kinds_in`; `PLACE` orders the lists). A file holds

- `wanted(labels, wish)`: the mask of a label map of any spatial rank, a pure function that can be compiled;
- where a volume has another form, `wanted_mm(labels, wish, spacing=...)`: `wish.radius` in mm, on NumPy arrays.
"""
