"""Crawl: pages to the URL manifest."""
