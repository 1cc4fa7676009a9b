"""Boxes that outlive the command that made them: a background process for each user holds them.

It is started when the first box is to be kept, and leaves when it holds none. It is no part of a command's way: a
client is handed the box's own socket, and its commands, their streams and their limits are between it and the box.
"""
