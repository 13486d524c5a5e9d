"""aligndistill: a teacher judges what a student writes, and the student learns the teacher's preferences."""

__version__ = "0.1.0"
