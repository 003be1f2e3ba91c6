"""What a client may not do to a daemon: dawdle, or come in crowds.

1. TLS is agreed on within `HANDSHAKE_SECS`. A head is there within `HEAD_SECS` of its first byte.
   A body takes `BODY_SECS` and the time its bytes need at `BODY_BYTES_A_SEC`, and is never silent
   for `BODY_SILENCE_SECS`.
2. What is left of a request that was refused is read for `DISCARD_SECS` at most, and only so that
   its sender gets to reading why: a connection closed on a client that still sends is reset, and
   most clients then report a broken pipe instead of our answer.
3. A client that takes nothing of its answer for `STALL_SECS` is gone: it holds a seat somewhere.
   What else it has asked for waits until then, so that nothing piles up before it.
4. A connection on which nothing is asked for `IDLE_SECS` is closed, and `IDLE_SECS` later it is
   gone, though its client has not taken all that was said.
5. There are so many connections that descriptors remain for the other side.
"""

import resource
from contextlib import suppress
from functools import cache

HANDSHAKE_SECS = 20.0
HEAD_SECS = 20.0
BODY_SECS = 20.0
BODY_BYTES_A_SEC = 1024
BODY_SILENCE_SECS = 60.0
DISCARD_SECS = 20.0
DISCARD_MAX_BYTES = 1 << 30
STALL_SECS = 120.0
IDLE_SECS = 75.0
_DESCRIPTORS = 65536


def raise_descriptor_limit() -> None:
    """Allow this process as many descriptors as it may have; a shell's default is for people."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@cache
def most_connections() -> int:
    """Return how many connections one listener takes."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft) * 3 // 4
