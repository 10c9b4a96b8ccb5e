"""Networks that are trained already: ours, exported ones, published ones."""
