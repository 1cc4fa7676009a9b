"""The daemon: virtual machines over HTTP. Its web framework is the extra `immure[daemon]`."""
