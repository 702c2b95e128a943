"""Networks from PyTorch modules: the ATen operations that `torch.export` keeps.

A module is exported in evaluation mode (`from_torch`). `reader` goes through its operations, keeps
account of what is written in place, and reads whole modules by a rule of the user. What an
operation does follows from its arguments and the shape of its result: `rules`, with `movement`,
`windows` and `norms`; `values` makes values of its arguments. Only from_torch.py can be imported
without PyTorch. Begin with from_torch.py and reader.py.
"""
