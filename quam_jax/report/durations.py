"""Times in words, as exactly as an estimate deserves."""


def about(seconds: float) -> str:
    """A time with one or two significant figures: 0.4 s, 4 s, 45 s, 8 min, 2.5 h, 3 days."""
    if seconds < 0.95:
        return f"{max(seconds, 0.01):.1g} s"
    if seconds < 20:
        return f"{seconds:.0f} s"
    if seconds < 97.5:
        return f"{5 * round(seconds / 5)} s"
    minutes = seconds / 60
    if minutes < 20:
        return f"{minutes:.0f} min"
    if minutes < 97.5:
        return f"{5 * round(minutes / 5)} min"
    hours = minutes / 60
    return f"{hours:.2g} h" if hours < 48 else f"{hours / 24:.0f} days"
