"""
Listeners: what a run tells, for people and for programs.

`pulse` adds events up, `logs` writes them as JSON lines, `panel` draws them on a terminal, `report`
is the summary at the end. Nothing here has a say in the run, and nothing sees a text or a key.
"""
