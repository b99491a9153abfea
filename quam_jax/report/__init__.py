"""What people look at: one self-contained report.html of a run folder, and the tables of the command line."""

from .html import write_report as write_report
from .tables import format_table as format_table
from .tables import method_table as method_table
from .tables import overview as overview
