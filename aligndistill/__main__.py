"""`python -m aligndistill`, and `deepspeed --module aligndistill`."""

from aligndistill.cli.app import main

main()
