"""Sound files with a few bytes changed, for readers that may refuse but never break."""

import random

import numpy as np


def mutate(content: bytes, random_: random.Random) -> bytes:
    """A few flipped, overwritten, removed or repeated bytes, mostly near the front or the back."""
    mutant = bytearray(content)
    for _ in range(random_.choice((1, 1, 1, 2, 4, 16))):
        size = len(mutant)
        if size < 16:
            break
        place = random_.choice((random_.randrange(size), random_.randrange(min(size, 64)), -random_.randrange(1, 64)))
        place = max(0, min(place % size, size - 9))
        kind = random_.random()
        if kind < 0.5:
            mutant[place] = random_.choice((0, 1, 0x7F, 0x80, 0xFF, random_.randrange(256)))
        elif kind < 0.65:
            width = random_.choice((2, 4, 8))
            number = random_.choice((0, 1, size, 2 ** (8 * width) - 1, 2 ** (8 * width - 1) - 1))
            mutant[place : place + width] = (number % 2 ** (8 * width)).to_bytes(width, "little")
        elif kind < 0.75:
            mutant[place : place + 1] = random_.choice(b"(0123].}{)tRbQcNeaus\x81\x85\x86\x87\x93").to_bytes(1, "big")
        elif kind < 0.85:
            del mutant[place : place + random_.randrange(1, 32)]
        elif kind < 0.95:
            begin = random_.randrange(size)
            mutant[place:place] = mutant[begin : begin + random_.randrange(1, 64)]
        else:
            del mutant[random_.randrange(size) :]
    return bytes(mutant)


def mutate_head(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip, overwrite, cut, repeat or insert bytes, near the head more often than not."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        reach = min(len(data), 400) if rng.random() < 0.7 else len(data)
        place = int(rng.integers(max(reach, 1)))
        match rng.integers(5):
            case 0 if data:
                data[place] ^= 1 << int(rng.integers(8))
            case 1:
                data[place : place + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0"])
            case 2:
                del data[int(rng.integers(len(data) + 1)) :]
            case 3:
                data[place:place] = data[place : place + int(rng.integers(64))]
            case _:
                data[place : place + 2] = rng.bytes(2)
    return bytes(data)
