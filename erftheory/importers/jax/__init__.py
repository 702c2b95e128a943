"""Networks from JAX functions: the equations of a jaxpr, in order.

A jitted function with a known name is an activation, any other is read inside; a scan is read step
by step, or along an axis of the image as what looks back without end (`scan`). Equations without
pixels are computed when a rule asks (`constants`). `rules` says what each primitive does,
`movement` what moves entries and `windows` what slides. Begin with from_jax.py and jaxpr.py.
"""
