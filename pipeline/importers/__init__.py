"""Import of images and labels in formats of other tools."""
