"""The explorer page of a generator: served with PyTorch, or static with ONNX."""
