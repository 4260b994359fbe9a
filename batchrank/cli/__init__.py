"""
The command line: one thin file a command, arguments in, words and an exit code out.

Commands import what they need when they run, so that `--help` stays quick. Nothing is decided here.
"""
