"""The exact ERF on the unbounded plane, every tail digit included.

`exact` asks one of two readings (`reading`): of weights ≥ 0 (`positive`) or of signed taps and
up-sampling (`signed`). They decide which method computes what: one axis at a time from tilted
transforms K(θ) = log Σ g e^{θt} (`tilted`, `generating`, `axis`), convolutions that grow
(`convolution`, and `lattices` behind up-sampling), and two compiled ones, `spectrum` and `direct`.
`window` says what was asked for. Begin with exact.py; docs/exact.md has the error bounds.
"""
