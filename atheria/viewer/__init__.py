"""The viewer: an engine that steps in its thread, a server for this machine's user, a page."""
