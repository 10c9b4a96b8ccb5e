"""Opt-out signals: how a site says that its images are not for machine learning.

Every module here is pure: text or bytes in, signals out. Fetching is the business of
`pipeline.web.request`; `pipeline.web.host_policy` combines what is read.
"""
