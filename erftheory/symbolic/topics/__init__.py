"""The derivations: one module a topic, each with one function that returns its `Derivation`.

They all speak about one signal. A unit's gradient goes back through n layers, each of them one
step of a walk, so that its square is the law p(n, t) of a sum of n steps, with
Σ_t p(n, t) z^t = (Σ_m w_m z^m)^n for equal layers of taps w. `convolution` has that law, `moments`
its cumulants, `gaussian` its limit, `edgeworth` and `saddlepoint` the corrections, `growth` its
width beside the field. `random_weights`, `nonlinearity`, `dropout`, `pooling` and `initialisation`
say why nets obey it; `subsampling`, `dilation`, `kernels` and `skip` what other layers make of it.
Begin with convolution.py and moments.py.
"""
