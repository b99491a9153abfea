"""Workers on many machines: what each does with its stream of tasks (station), who gets which (dealing), and Ray (crew)."""
