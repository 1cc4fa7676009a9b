"""Foreign formats, read into plain values. Pure."""
