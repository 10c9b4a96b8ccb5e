"""Import: images and labels from formats of other tools."""
