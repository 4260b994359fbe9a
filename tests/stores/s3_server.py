"""
An S3 store on loopback: moto's server, in a process of its own, so that its work is not ours.

`python -m tests.stores.s3_server` prints its port once it listens, and leaves when its standard
input ends: with whoever started it, however that ended. Objects live in its memory and in its
temporary files. It checks no signature, but it takes a request without one for a stranger's.
"""

import logging
import sys

from moto.server import ThreadedMotoServer


def main() -> None:
    """
    Serve until nobody holds the other end of standard input.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    sys.stdout.write(f"{server.get_host_and_port()[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()  # its threads are daemons: they end with the process


if __name__ == "__main__":
    main()
