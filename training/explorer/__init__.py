"""The page on which a generator is explored: served beside PyTorch, or static with ONNX."""
