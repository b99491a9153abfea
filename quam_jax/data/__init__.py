"""Files in, arrays out, and back: images and masks with their geometry, folder layouts, preprocessing."""
