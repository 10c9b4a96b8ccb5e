"""From an image file to a training sample: decoding, cropping, resizing, rendering."""
