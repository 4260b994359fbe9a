"""
Pure decisions: what to send next, when, whether again, and what it may cost.

No module here knows a clock, randomness or I/O: time, jitter and texts' lengths are arguments, so
that every rule can be tested as a table. What is decided here is carried out in `engine`.
"""
