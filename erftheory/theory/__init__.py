"""The reverse pass and its algebras: readings of one network description."""
