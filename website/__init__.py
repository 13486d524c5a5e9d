"""The documentation's site: its map, what is generated for it, its pictures, and how it is built."""
