"""What is done with finished runs: review lists, comparison of two dates, other file formats."""
