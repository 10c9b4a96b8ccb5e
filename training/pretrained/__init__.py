"""Trained networks: runs, exported folders, published weights."""
