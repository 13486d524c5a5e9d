"""The same work done by this package and by others, side by side: `python -m benchmarks NAME [...]`.

A row is one piece of work (`rows.py`). Its sides (`sides/`) do it in processes of their own, each in its peer's environment
(`environments.py`), on the same files (`worlds.py`), in turns: A B A B (`measure.py`). Before a ratio is believed, losses and gradient
norms are compared (`equal.py`).

`sides/` and `probe.py` run in the peers' environments too: the peers' sides import nothing of this project but each other.
"""
