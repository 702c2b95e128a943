"""What a value of a model is: pixels, what was read off all of them, or a constant.

A dimension is a list of atoms (axis, step, size), the first varying slowest, so that a reshape
(H,) to (H/p, p) gives the atoms (axis, p, H/p) and (axis, 1, p), and patches, windows and tokens
stay readable. Constants are computed when a rule asks for them (`constants`); `factors` says what
a normalisation has of them. Begin with dimensions.py and pixels.py.
"""
