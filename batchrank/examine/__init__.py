"""
Read-only questions about a job: what it would do, how far it is, whether its output is whole.

Nothing here writes, locks or calls anybody; a job may be running while it is asked about.
"""
