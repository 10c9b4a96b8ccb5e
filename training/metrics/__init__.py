"""Metrics of the quality of generated images.

The metrics are pure functions of feature arrays, one file each. `suite` computes all of them with
baseline and standard deviation; `feature_networks` turns images into features; `real` and `fake`
provide the images.
"""
