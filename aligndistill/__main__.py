"""`python -m aligndistill`, and `deepspeed --module aligndistill`."""

from aligndistill.cli import main

main()
