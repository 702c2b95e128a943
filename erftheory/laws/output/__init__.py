"""What a run of the laws prints and keeps.

`lines` has the table, one line a law as it is decided: how near is the share of the allowed
deviation that the comparison with the least slack has used, 1 - margin / allowed; and the evidence
that `--evidence` adds. `record` is the same as data, for JSON. Nothing here decides anything.
Begin with lines.py.
"""
