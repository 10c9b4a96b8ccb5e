"""Image files and samples: decoding, cropping, resizing, rendering."""
