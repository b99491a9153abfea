"""Which patient a case is of, by its name."""

import re


def patient_of(name: str, pattern: str | None) -> str:
    """The patient that a case name carries, the first group of the pattern or its whole match; the name without a pattern.

    ValueError if the pattern does not occur in the name, or is none.
    """
    if pattern is None:
        return name
    try:
        found = re.search(pattern, name)
    except re.error as error:
        raise ValueError(f"patient: expected a regular expression, got {pattern!r} ({error})") from None
    if found is None:
        raise ValueError(f"case {name}: expected a patient as {pattern!r} in the name, got none")
    return found[1] if found.groups() else found[0]
