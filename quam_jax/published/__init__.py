"""The published implementation of QUAM-SM: its combination of samples and its figures, defects included."""
