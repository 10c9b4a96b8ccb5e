"""Opt-out signals: how a site says that its images are not for machine learning.

Every module here is pure: text or bytes in, signals out. Fetching is the business of the two
drivers (`pipeline.fetcher`, `pipeline.web.bulk_fetcher`), which share `pipeline.web.host_policy`.
"""
