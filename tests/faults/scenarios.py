"""Every scenario, in the order in which they are run."""

from tests.faults.answer_faults import ANSWER_SCENARIOS
from tests.faults.device_faults import DEVICE_SCENARIOS
from tests.faults.load_faults import LOAD_SCENARIOS
from tests.faults.scenario import Scenario

#: The last one takes a GPU out of use for as long as the node lives.
SCENARIOS: tuple[Scenario, ...] = (*ANSWER_SCENARIOS, *LOAD_SCENARIOS, *DEVICE_SCENARIOS)
