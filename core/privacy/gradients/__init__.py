"""How the gradient of each unit is computed: several ways to the same numbers.

A unit's gradient is that of the mean loss over its rows (views). The strategies differ
in speed and memory only; which one runs, and on how many rows at a time, is chosen by
`tuner`. What they give is bounded in `privacy.clipping`, whatever it is.
"""
