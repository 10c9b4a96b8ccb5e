"""Tests of both packages, and what they share in `helpers`."""
