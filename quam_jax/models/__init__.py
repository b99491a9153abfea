"""A network with its weights: in memory, in a folder, and what its output channels mean."""
