"""Mutants of the report: the order of its first screen, the costs of flips, and where a volume lies."""

from ..mutant import room

ORDER = "report_first_look.py::test_the_order_is_that_of_rank"
OFF = "report_first_look.py::test_what_is_off_is_told"
FLIPS = "report_first_look.py::test_pixel_runs_show_costs_first"
VALUES = "report_first_look.py::test_the_viewer_has_the_values_of_the_maps"
LARGE = "report_first_look.py::test_a_large_volume_is_cropped_and_reduced_and_stays_where_it_is"
LEVELS = "report_parts.py::test_map_levels"

REPORT = room(
    "report",
    ("first_look.py", "first = math.ceil(top * len(ranked))", "first = math.floor(top * len(ranked))", ORDER),
    ("first_look.py", "self.share > 0.5", "self.share > 0.1", ORDER),
    ("first_look.py", "members > 0 and held == 0", "members > 0 and held < members", OFF),
    ("first_look.py", "0 < held < members and not asked", "0 < held < members and asked", OFF),
    ("figures.py", "1 - (1 - LOWEST) * place", "(1 - LOWEST) * place", LEVELS),
    ("flips.py", "int(left.argmin())", "int(np.where(np.isinf(left), 0, left).argmax())", FLIPS),
    ("flips.py", "left[area] = np.inf\n        left[tuple", "left[area] = np.inf\n        costs[tuple", FLIPS),
    ("sizes.py", "min(values), max(values), found.unit", "values[0], max(values), found.unit", ORDER),
    ("viewer.py", "scaled=(scale.high / STEPS, 0.0)", "scaled=(scale.high / 255, 0.0)", VALUES),
    ("viewer.py", "b.start + (f - 1) / 2 for", "b.start for", LARGE),
    ("viewer.py", "moved[:3, :3] *= np.array(factors)", "moved[:3, :3] *= np.array(factors[::-1])", LARGE),
)
