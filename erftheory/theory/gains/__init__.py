"""The forward pass: how much power every link of the graph carries, and the one door to a walk.

`forward.meanfield_gains` carries the laws of `units` from the input to the output; `transport`
takes repetitions through in closed form, `norms` know what is normalised over what, `groups` are
channels of one law. `prepare`
is the door that every reading takes; `between` cuts a part out of a network and keeps the gains
of the whole. Begin with prepare.py.
"""
