"""Networks from ONNX models: the nodes of a graph, in order.

A node of any opset is first put in today's form, by one table of attributes that became inputs
(`opsets`); then each operator has a rule that takes its attributes and inputs (`rules`, `movement`,
`norms`, `recurrent`). Nodes without pixels are computed by ONNX's own reference when a rule asks.
Modules that an export of PyTorch names are endpoints. Begin with from_onnx.py and reader.py.
"""
