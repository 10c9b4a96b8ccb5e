"""How good runs are: beside real images, while training, as classifiers."""
