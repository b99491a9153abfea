"""What an adversarial model is asked for: masks moved as a whole, pixels, regions."""
