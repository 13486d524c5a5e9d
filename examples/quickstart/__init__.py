"""The quickstart world: simple questions whose truth is known, answers good and flawed, and the checker `truth`.

`python -m examples.quickstart OUT_DIR` writes the data. Only the evaluation may use `truth`; judge and training never see it.
"""
