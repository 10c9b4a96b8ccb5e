"""How good generated images are, as numbers.

The measures are pure functions of feature arrays, one file each. `suite` computes all of them with
their bias and spread; `networks` turns images into features; `real` and `fake` bring the images.
"""
