"""Cases larger than one pass of the network: patches on the network's grid, joined."""
