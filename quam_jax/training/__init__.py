"""A small optax trainer and its settings."""
