"""Programs by hand that laws are judged by, written without the theory's code.

`byhand` has small expectations in closed form or by plain sums (gates, pools, masks, branches);
`wide` executes nets of many channels, where the theory of infinitely wide nets, E g² = Πσ²·…, is
near. Begin with byhand.py.
"""
