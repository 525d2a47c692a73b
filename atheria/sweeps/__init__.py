"""Many runs as one: the points of a sweep, where they run, and what came of them."""
