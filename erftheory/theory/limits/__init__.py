"""How near an ERF is to its limit: densities, bounds and conditions.

`approximations` has the normal, Edgeworth and saddlepoint densities of cumulants and of K(θ),
`normality` Berry-Esseen and local bounds |g − φ| ≤ …, `errors` integrates their errors,
`conditions` says which laws apply to a network. Begin with approximations.py.
"""
