"""Slow routes that assume nothing of the theory which they judge.

`enumeration` takes E g² over all ±σ weights of a tiny net, 2^K settings, without sampling error.
`probe_network` finds a network's receptive field by watching NaN spread through the executed net;
`probe` does so for any function or module, or perturbs its pixels where it has no NaN. Begin with
probe.py.
"""
