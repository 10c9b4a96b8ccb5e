"""Downloads the images of the URL manifest and stores them in parts."""
