"""Run `up` with other daemons: `driver.py JOURNAL NEURON_MODE CORTEX_MODE [--no-preload]`."""

import os
import sys
from pathlib import Path

from cortex_core.commands import reporting
from cortex_gateway.up import Commands, UpOptions, run_up

journal, neuron_mode, cortex_mode = sys.argv[1:4]
fake = str(Path(__file__).with_name("fake_daemon.py"))
commands = Commands(
    neuron=(sys.executable, fake, "neuron", neuron_mode, journal),
    cortex=(sys.executable, fake, "cortex", cortex_mode, journal),
)
options = UpOptions(port=0, metrics_port=0, neuron_port=0, preload="--no-preload" not in sys.argv)
sys.exit(int(reporting(run_up)(options, os.environ, commands)))
