"""Networks read from models: `from_jax`, `from_onnx`, `from_torch`.

A reader (jax/, onnx/, torch/) walks the model's operations in order and hands each to `Assembler`
(building/), which knows what every array dimension means (values/) and appends to a graph.
"""
