"""Networks read from models: `from_jax`, `from_onnx`, `from_torch`.

A reader walks the model's operations in order and hands each to `Assembler` (assemble.py), which
knows what every array dimension means (signals.py) and appends to a graph.
"""
