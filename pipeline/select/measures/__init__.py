"""Measures of images for filters: functions from images to one value each."""
