"""Opt-out signals: how a site states that its images are not for machine learning.

The modules are pure parsers from text or bytes to signals. `pipeline.web.request` fetches the
files, and `pipeline.web.hosts` combines them.
"""
