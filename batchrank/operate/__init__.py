"""
Jobs about jobs: write one, rehearse one, serve what a rehearsal needs, prune one's ledger.

Owns nothing of a run itself: whatever is done to an output goes through `job`.
"""
