"""`cortex up`: one neuron and one cortex on this machine, from nothing to the first answer.

`plan` decides (ports, files, the model to load) and `children` runs the two daemons; `running`
starts them in order, watches, and ends them in order.
"""

from cortex_gateway.up.plan import Commands, UpOptions
from cortex_gateway.up.running import run_up

__all__ = ["Commands", "UpOptions", "run_up"]
