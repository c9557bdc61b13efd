"""What the scripts train with: flags and settings, the loop, and what a run leaves in its folder."""
