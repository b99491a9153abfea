"""One case in memory, an image or a volume: predict, choose targets, search, weigh, decompose, audit."""
