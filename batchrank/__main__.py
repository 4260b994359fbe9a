"""
`python -m batchrank` is the command `batchrank`. Nothing else happens here.
"""

from batchrank.cli.main import main

if __name__ == "__main__":
    main()
