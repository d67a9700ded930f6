"""`make torture`: the worst that can happen to the daemon, again and again, beside a model of what must come of it."""
