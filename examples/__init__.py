"""Small things to copy from."""
