"""What each side does in a round. `ours_*` use this project's own entry points, `trl_*` and `naive_*` nothing of it."""
