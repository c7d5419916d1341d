"""What happens now: the platform's events and the timelines of jobs, told as they are written."""
