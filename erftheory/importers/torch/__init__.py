"""Networks from PyTorch modules: the ATen operations that `torch.export` keeps.

`from_torch` exports a module in evaluation mode, `reader` goes through its operations, with what is
written in place and with rules for whole modules, and `rules`, `movement` and `windows` say what
each does by the shape of its result. Only reader.py and what it imports need PyTorch. Begin with
from_torch.py and reader.py.
"""
