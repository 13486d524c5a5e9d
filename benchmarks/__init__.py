"""The same work done by this package and by others, side by side: `python -m benchmarks NAME [...]`.

A row is one piece of work (`rows.py`). Its sides (`sides/`) do it in processes of their own, each in its peer's environment
(`environments.py`), on the same files (`worlds.py`), in turns: A B A B (`measure.py`). Losses and gradient norms are compared, so
that a ratio is one of equal work. `growth.py` measures how cost grows with the size of the work.

`sides/`, `worlds.py` and `probe.py` run in the peers' environments too: peers' sides import nothing of this project but those.
"""
