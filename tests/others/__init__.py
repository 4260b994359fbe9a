"""
batchrank beside what others wrote: their clients at the embedded server, their servers asked by
batchrank, and their models in this process.

Each of them lives in an environment of its own (`tests.bench.peers.envs`), made when it is first
needed: minutes and gigabytes, which is why `make test` leaves these tests out and `make others`
runs them.
"""
