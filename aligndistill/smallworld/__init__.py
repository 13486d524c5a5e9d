"""The quickstart's small world: simple questions whose truth is known, answers good and flawed, and the checker `truth`.

`python -m aligndistill.smallworld OUT_DIR` writes the data. Only the evaluation may use `truth`; judge and training never see it.
"""

from aligndistill.smallworld.checker import truth

__all__ = ["truth"]
