"""Servers, sites, datasets and processes for the tests."""
