"""What a value of a model is: pixels, what was read off all of them, or a constant.

A dimension is a list of atoms (axis, step, size), the first varying slowest, so that a reshape
(H,) to (H/p, p) gives the atoms (axis, p, H/p) and (axis, 1, p), and patches, windows and tokens
stay readable (`dimensions`). `Pixels` have a node of the graph, a meaning for every dimension, and
what waits to be written behind that node (`pixels`). Constants are computed when a rule asks
(`constants`), `factors` says what a normalisation has of them, and what has no reading raises
`Unreadable` (`refusals`). Begin with dimensions.py and pixels.py.
"""
