"""Boxes behind a channel: to the engine they are what the process runtime's boxes are."""
