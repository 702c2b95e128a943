"""Networks from ONNX models: the nodes of a graph, in order.

Each operator has a rule that takes its attributes and inputs (`rules`, `movement`, `norms`,
`recurrent`); those whose inputs do not depend on the image are computed by ONNX's own reference
when a rule asks. Modules of a PyTorch export are endpoints. Begin with from_onnx.py and rules.py.
"""
