"""The fault wall: what a client sees when what is behind the gateway fails.

Each cell of it is a scenario, a dialect that the client speaks, and whether it
wants a stream.  A gateway with two deployments on two fake upstreams answers
it, over real sockets, and the cell stands when the answer is whole and comes
from somebody, or when the client is told in its own dialect that it is not; and
when the bill is right and nobody was asked more often than allowed.

``python -m atomr_infer.testing.wall`` prints the table.
"""
