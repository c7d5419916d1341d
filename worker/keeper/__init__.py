"""The keeper: a small process beside the daemon that holds the streams of running commands while no daemon does."""
