"""The walk that an ERF is the law of, and how it is folded.

A unit is traced back to the input. With every signal scaled to mass 1 the weights at a fork are
probabilities and each layer is a step: g(x) = P(S = x), S = Σ_l j_l (d_l A_l − p_l) with taps
A_l, jumps j, dilations d, paddings p. `Walk` holds its vertices and edges, `Algebra.fold` runs
it from the output to the input with any kind of signal, `links` are the gains it is weighted
by, `weights` exact numbers that become floats where they must. Begin with walk.py.
"""
