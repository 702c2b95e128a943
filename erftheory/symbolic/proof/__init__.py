"""What a proof is: statements, the evidence for each, and how both are shown.

A derivation is a chain of steps, and a step is an equation left = right with a reason and a check
that is really run. A check knows what the names mean, never what the equation should say, so a
wrong equation fails. It is a symbolic identity (left − right reduces to 0), an induction over
layers (n = 1, and n + 1 from n), or exact arithmetic at points where the names have brute-force
meanings.

`derivation` has steps, derivations and reports, `evidence` the checks, `counterexample` numbers
that soon show what is false, `exact` the arithmetic in fractions, `brute` the references without
formulas, `numeric` formulas as functions of arrays, `render` text, markdown and LaTeX, `names` the
letters that all share. Begin with derivation.py and evidence.py.
"""
