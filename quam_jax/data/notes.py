"""Notes on cases, so that a thousand cases of one kind are one line."""

from collections.abc import Iterable, Sequence

SEPARATE = 5  # cases whose notes of one text stand apart


def gathered(notes: Sequence[str], names: Iterable[str]) -> list[str]:
    """Notes `NAME: TEXT` of the cases of these names, in order; one text of more than SEPARATE cases is one note."""
    known = set(names)
    cases: dict[str, list[str]] = {}
    for note in dict.fromkeys(notes):
        name, colon, text = note.partition(": ")
        told = colon and name in known
        cases.setdefault(text if told else note, []).extend([name] if told else [])
    found = []
    for text, of in cases.items():
        if len(of) > SEPARATE:
            found.append(f"{len(of)} cases ({', '.join(of[:3])}, ...): {text}")
        else:
            found += [f"{name}: {text}" for name in of] or [text]
    return found
