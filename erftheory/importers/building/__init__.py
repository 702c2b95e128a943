"""The graph of a model, built from values, whatever framework they come from.

`Pointwise` keeps functions of each entry and constant factors in the value until an operation that
is not pointwise reads it; `WholeAxes` adds what reads axes whole, and `Assembler` what mixes
channels or pixels. `movement`, `windows`, `patches` and `resample` are the operations that the
readers call; `image`, `ends` and `rules` are about what the user asks. Begin with assemble.py.
"""
