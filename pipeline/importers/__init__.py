"""Imports images and labels in the formats of other tools."""
