"""What the scripts train with: flags, settings, the loop, and the files that a run writes."""
