"""Which engines are due for a fresh process.

Every load and unload leaves device memory a little more scattered, and engines that stay the whole
time sit in the middle of it. After so many cycles on a node they are started anew, one at a time
and only while nobody uses them.
"""

from cortex_router.lifecycle import ARRIVING, Status
from cortex_router.nodes import Node

#: Whoever was used a moment ago is about to be used again.
IDLE_SECS = 30.0


def due_for_restart(node: Node, after_cycles: int, now: float) -> str | None:
    """Return the model whose engine should be started anew now, None when there is none.

    `after_cycles` is how many loads on the node an engine may outlast; 0 turns it off. The one that
    has outlasted most comes first, equals by name. While anything comes or goes nobody is due.
    """
    if after_cycles == 0 or node.load_cycles is None or not node.usable:
        return None
    if any(replica.status in ARRIVING for replica in node.replicas):
        return None
    due = [
        (replica.loaded_in_cycle, replica.model)
        for replica in node.replicas
        if replica.status is Status.LOADED
        and not replica.busy
        and replica.loaded_in_cycle is not None
        and node.load_cycles - replica.loaded_in_cycle >= after_cycles
        and now - max(replica.last_used or 0.0, replica.loaded_at or 0.0) >= IDLE_SECS
    ]
    return min(due)[1] if due else None
