"""The queue layer: jobs, attempts, claims, reports. The database decides, Celery carries."""
