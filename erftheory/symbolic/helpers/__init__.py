"""What several topics stand on: series in 1/√n, sums of powers, and nets small enough to list.

`rewrites` evaluates sums and waves of any statement, `series` has Laurent series and the limits
they give, `powers` rational functions of b^n, as sums over layers of equal strides give. `hermite`
has the terms of Edgeworth's expansion, g(x) = φ(x) (1 + ε λ₃ He₃(x)/6 + …) with ε = 1/√n, and
`level_sets` the steps on where such a signal is above a share e^{−L} of its centre. `nets` and
`linear_nets` average squared gradients over all small nets with finitely many weights, with and
without an activation, in fractions: they are what the topics on random nets are checked against.
Begin with rewrites.py and nets.py.
"""
